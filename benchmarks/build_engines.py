"""Build engines of a bundle aside and write what each cost: time, memory, sizes, fused attentions.

    python benchmarks/build_engines.py --bundle BUNDLE --target sm_120 --precision bf16,fp8 \
        --prompt-tokens 200 --steps 10 --json benchmarks/build-pi05-sm120.json

The bundle is not changed. A precision that it holds no graphs of is made aside from its float
graphs, with activation scales that are made up: good for sizes and times of a build, for nothing
else, and the row says so. Each engine is built in a process of its own; its memory is that
process's largest resident size, its seconds cover parsing and building, not starting Python. A
build is no run: nothing here was executed on a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vla_trt_ros.backends.trt_module import TensorRT
from vla_trt_ros.bundle import Bundle, SourceEntry, open_bundle
from vla_trt_ros.config import STAGES
from vla_trt_ros.errors import VlaError
from vla_trt_ros.export.quantize.bundle import quantize_bundle
from vla_trt_ros.export.quantize.ranges import ActivationRange
from vla_trt_ros.export.trt.builder import BuildOptions, peak_memory_bytes
from vla_trt_ros.export.trt.graph_facts import read_graph
from vla_trt_ros.export.trt.targets import choose_builder, local_target
from vla_trt_ros.export.trt.worker import build_apart
from vla_trt_ros.hardware import cpu_name


def main() -> int:
    """Status 1 where an engine was not built."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--bundle', type=Path, required=True)
    parser.add_argument('--target', default='sm_120')
    parser.add_argument('--precision', default='bf16', help='names, with commas')
    parser.add_argument('--stage', default=','.join(STAGES), help='names, with commas')
    parser.add_argument('--prompt-tokens', type=int, default=200)
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--json', type=Path, metavar='FILE', help='rows are added to those in it')
    args = parser.parse_args()
    bundle = open_bundle(args.bundle)
    trt = choose_builder(args.target, args.bundle, None, local_target())
    record: dict[str, Any] = {
        'hardware': cpu_name(),
        'builder': trt.title,
        'bundle': {'name': bundle.name, **bundle.manifest.notes},
        'clock': 'parse and build, wall clock; memory: VmHWM of the building process',
        'ran_on_a_gpu': False,
        'engines': [],
    }
    if args.json and args.json.exists():
        record['engines'] = json.loads(args.json.read_text(encoding='utf-8'))['engines']
    failed = 0
    for stage in args.stage.split(','):
        for precision in args.precision.split(','):
            with tempfile.TemporaryDirectory(dir=bundle.path.parent) as name:
                folder = Path(name)
                for place, source, extra in graphs(bundle, stage, precision, args, folder):
                    row = measure(place, folder, source, args.target, trt) | extra
                    failed += 'refused' in row
                    print(json.dumps(row), flush=True)
                    record['engines'] = [r for r in record['engines'] if not same(r, row)]
                    record['engines'].append(row)
                    if args.json:
                        text = json.dumps(record, indent=1) + '\n'
                        args.json.write_text(text, encoding='utf-8')
    return 1 if failed else 0


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two rows are of the same engine."""
    keys = ('stage', 'precision', 'prompt_tokens', 'steps', 'target')
    return all(one[k] == other[k] for k in keys)


class MadeUpRanges(dict[str, ActivationRange]):
    """The same range for every GEMM, for builds that nobody will judge."""

    def __missing__(self, key: str) -> ActivationRange:
        return ActivationRange(8.0, 6.0, np.ones(1, np.float32))


def graphs(
    bundle: Bundle, stage: str, precision: str, args: argparse.Namespace, folder: Path
) -> Iterator[tuple[Path, SourceEntry, dict[str, Any]]]:
    """Where each graph lies, its row in a manifest, and what making it cost."""

    def wanted(bucket: int | None, steps: int | None) -> bool:
        return bucket in (None, args.prompt_tokens) and steps in (None, args.steps)

    held = [
        s
        for s in bundle.manifest.sources
        if (s.stage, s.precision) == (stage, precision) and wanted(s.prompt_bucket, s.num_steps)
    ]
    if held:
        for source in held:
            yield bundle.file(source.file), source, {}
        return
    begin = time.monotonic()
    new = quantize_bundle(
        bundle,
        [precision],
        folder,
        ranges={stage: MadeUpRanges(none=ActivationRange(1.0, 1.0, np.ones(1, np.float32)))},
        stages=[stage],
        keys=lambda _, key: wanted(*key),
    )
    cost = {
        'activation_scales': 'made up',
        'quantise_seconds': round(time.monotonic() - begin, 1),
        'quantise_peak_memory_bytes': peak_memory_bytes(),
    }
    for source in new.sources:
        yield folder / source.file, source, cost


def measure(
    graph: Path, folder: Path, source: SourceEntry, target: str, trt: TensorRT
) -> dict[str, Any]:
    """One row."""
    facts = read_graph(graph)
    row: dict[str, Any] = {
        'stage': source.stage,
        'precision': source.precision,
        'prompt_tokens': source.prompt_bucket,
        'steps': source.num_steps,
        'target': target,
        'onnx_weight_bytes': facts.weight_bytes,
        'attentions': facts.attentions,
    }
    options = BuildOptions(source.file, source.precision, target)
    plan = folder / 'plan'
    try:
        built = build_apart(graph, plan, options, trt)
    except VlaError as error:
        return row | {'refused': str(error)}
    finally:
        plan.unlink(missing_ok=True)
    return row | {
        'plan_bytes': built.plan_bytes,
        'seconds': round(built.seconds, 1),
        'peak_memory_bytes': built.peak_memory_bytes,
        'layers': built.log.layers,
        'layer_types': built.log.kinds,
        'fused_attentions': built.log.fused_attentions,
        'low_precision_layers': built.log.low_precision,
        'weights_bytes': built.log.weights_bytes,
        'activation_bytes': built.log.activation_bytes,
    }


if __name__ == '__main__':
    sys.exit(main())
