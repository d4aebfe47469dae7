"""Build engines of a bundle aside and write what each cost: time, memory, sizes, fused attentions.

    python benchmarks/build_engines.py --bundle BUNDLE --target sm_120 --precision bf16,fp8 \
        --prompt-tokens 200 --steps 10 --json benchmarks/build-pi05-sm120.json

The bundle is not changed. Each engine is built in a process of its own; its memory is that
process's largest resident size, its seconds cover parsing and building, not starting Python. A
build is no run: nothing here was executed on a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from vla_trt_ros.backends.trt_module import TensorRT
from vla_trt_ros.bundle import Bundle, SourceEntry, open_bundle
from vla_trt_ros.config import STAGES
from vla_trt_ros.errors import VlaError
from vla_trt_ros.export.trt.builder import BuildOptions
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
            for source in bundle.manifest.sources:
                fits = (source.stage, source.precision) == (stage, precision)
                bucket = source.prompt_bucket in (None, args.prompt_tokens)
                if fits and bucket and source.num_steps in (None, args.steps):
                    row = measure(bundle, source, args.target, trt)
                    failed += 'refused' in row
                    print(json.dumps(row), flush=True)
                    same = ('stage', 'precision', 'prompt_tokens', 'steps', 'target')
                    record['engines'] = [
                        r for r in record['engines'] if any(r[k] != row[k] for k in same)
                    ] + [row]
                    if args.json:
                        text = json.dumps(record, indent=1) + '\n'
                        args.json.write_text(text, encoding='utf-8')
    return 1 if failed else 0


def measure(bundle: Bundle, source: SourceEntry, target: str, trt: TensorRT) -> dict[str, Any]:
    """One row."""
    facts = read_graph(bundle.file(source.file))
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
    with tempfile.TemporaryDirectory(dir=bundle.path.parent) as folder:
        try:
            built = build_apart(bundle.file(source.file), Path(folder) / 'plan', options, trt)
        except VlaError as error:
            return row | {'refused': str(error)}
    return row | {
        'plan_bytes': built.plan_bytes,
        'seconds': round(built.seconds, 1),
        'peak_memory_bytes': built.peak_memory_bytes,
        'layers': built.log.layers,
        'fused_attentions': built.log.fused_attentions,
        'low_precision_layers': built.log.low_precision,
        'weights_bytes': built.log.weights_bytes,
        'activation_bytes': built.log.activation_bytes,
    }


if __name__ == '__main__':
    sys.exit(main())
