"""Time, memory and size of quantising a true-size bundle: a process per stage and precision.

    python benchmarks/quantize_pi05.py --bundle BUNDLE --out FOLDER --json FILE

The ranges of activations are assumed (the same for every GEMM), for they change the scales alone:
the graphs have the sizes of real ones, and must not be run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import UserDict
from pathlib import Path

import numpy as np

from vla_trt_ros.bundle import MANIFEST, Bundle, _parse
from vla_trt_ros.config import STAGES
from vla_trt_ros.export.quantize.bundle import quantize_bundle
from vla_trt_ros.export.quantize.ranges import ActivationRange
from vla_trt_ros.hardware import cpu_name

PRECISIONS = ('fp8', 'int8', 'int4', 'nvfp4')


class Assumed(UserDict):
    """The same range for whatever GEMM is asked for."""

    def __missing__(self, key):
        return ActivationRange(16.0, 12.0, np.full(1, 16.0, np.float32))

    def __bool__(self):
        return True


def main() -> None:
    """Every stage at every precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--bundle', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--json', type=Path)
    parser.add_argument('--precision', default=','.join(PRECISIONS))
    parser.add_argument('--one', nargs=2, metavar=('STAGE', 'PRECISION'), help='used by itself')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.one:
        print(json.dumps(one(args.bundle, args.out, *args.one)))
        return
    rows = []
    for precision in args.precision.split(','):
        for stage in STAGES:
            command = [sys.executable, __file__, '--bundle', args.bundle, '--out', args.out]
            done = subprocess.run(
                [*command, '--one', stage, precision], capture_output=True, text=True, check=True
            )
            rows.append(json.loads(done.stdout))
            print(rows[-1], flush=True)
    if args.json:
        record = {'hardware': cpu_name(), 'ranges': 'assumed', 'rows': rows}
        args.json.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')


def one(path: Path, out: Path, stage: str, precision: str) -> dict:
    """One row."""
    where = path / MANIFEST
    manifest, config = _parse(where.read_bytes(), where)
    bundle = Bundle(path, manifest, config, '')  # hashes are not in question here
    begin = time.perf_counter()
    new = quantize_bundle(
        bundle,
        [precision],
        out,
        ranges={stage: Assumed()},
        stages=[stage],
        cpu=False,
        smooth=False,
    )
    made, usage = new.stages[0], resource.getrusage(resource.RUSAGE_SELF)
    return {
        'stage': stage,
        'precision': precision,
        'graphs': len(new.sources),
        'gemm_weights': made.quantized,
        'kept': len(made.kept),
        'seconds': round(time.perf_counter() - begin, 1),
        'cpu_seconds': round(usage.ru_utime + usage.ru_stime, 1),
        'peak_memory_mb': round(usage.ru_maxrss / 1024),
        'weight_mb': round(made.weight_bytes / 1e6, 1),
    }


if __name__ == '__main__':
    main()
