"""Build nano at every precision for every GPU that TensorRT-RTX targets, and compare with what is
expected: refusals, and every attention in one kernel.

    python benchmarks/compile_matrix.py --json benchmarks/compile-matrix.json

Needs the extras export and trt-build, no GPU: nothing is executed on one. Status 1 where a cell is
not as expected.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from vla_trt_ros.backends.trt_module import find_tensorrt
from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import find_file
from vla_trt_ros.export.precision import PRECISIONS as ROWS
from vla_trt_ros.export.trt.matrix import (
    PRECISIONS,
    TARGETS,
    compile_matrix,
    make_sources,
    table,
)
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.policies.pi05.engines import read_config


def main() -> int:
    """Status 0 where every cell is as expected."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--bundle', default='nano')
    parser.add_argument('--prompt-tokens', type=int, default=0, help='(default: the fewest)')
    parser.add_argument('--steps', type=int, default=2)
    parser.add_argument('--json', type=Path, metavar='FILE')
    args = parser.parse_args()
    begin = time.monotonic()
    bundle = open_bundle(find_file('bundles', args.bundle, ''))
    bucket = args.prompt_tokens or read_config(bundle).prompt_buckets[0]
    trt = find_tensorrt('tensorrt_rtx')
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = make_sources(bundle, PRECISIONS, bucket, args.steps, folder)
        made = time.monotonic() - begin
        cells = []
        for cell in compile_matrix(sources, TARGETS, folder, trt):
            cells.append(cell)
            print(f'{len(cells):3} {cell.stage} {cell.precision} {cell.target}', file=sys.stderr)
    print(table(cells))
    bad = [cell for cell in cells if not cell.good]
    for cell in bad:
        print(f'not as expected: {cell}')
    record = {
        'hardware': cpu_name(),
        'builder': trt.title,
        'bundle': bundle.name,
        'prompt_tokens': bucket,
        'steps': args.steps,
        'clock': 'seconds of a cell: parse and build, wall clock; nothing ran on a GPU',
        'seconds_calibrate_and_quantise': round(made, 1),
        'seconds_total': round(time.monotonic() - begin, 1),
        'refused_by_stage': {p: ROWS[p].refused for p in PRECISIONS if ROWS[p].refused},
        'cells': [asdict(cell) | {'as_expected': cell.good} for cell in cells],
    }
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
