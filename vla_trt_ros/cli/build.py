"""Build TensorRT engines of a bundle for a platform: an engine per stage, prompt length and step
count, from the bundle's ONNX graphs. What is up to date is kept.

Engines for GeForce and RTX PRO are built ahead on any machine (pip install
'vla_trt_ros[trt-build]'); for Jetson, H100 and H200 run the command on the device itself, where
TensorRT is. A build executes nothing on a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vla_trt_ros.backends.engine_file import EngineRecord
from vla_trt_ros.backends.trt_module import FLAVOURS
from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import STAGES, find_file, load_platform, targets
from vla_trt_ros.errors import ConfigError

if TYPE_CHECKING:
    from vla_trt_ros.export.trt.bundle_build import Job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which bundle, for what, and how much of it."""
    parser.add_argument('--bundle', required=True, help='name or path')
    parser.add_argument('--platform', required=True, help='file of config/platforms, or a path')
    parser.add_argument('--target', help="GPU as 'sm_120' (default: the platform's)")
    parser.add_argument(
        '--stage', action='append', default=[], help=f'only this one of {", ".join(STAGES)}'
    )
    parser.add_argument('--precision', help="for all stages (default: the platform file's)")
    parser.add_argument(
        '--prompt-tokens', type=_numbers, default=(), metavar='N,N', help='only these buckets'
    )
    parser.add_argument(
        '--steps', type=_numbers, default=(), metavar='N,N', help='only these step counts'
    )
    parser.add_argument(
        '--workspace',
        type=float,
        default=0.0,
        metavar='GIB',
        help="limit of the builder's scratch",
    )
    parser.add_argument('--builder', choices=FLAVOURS, help='(default: one that has the target)')
    parser.add_argument('--dry-run', action='store_true', help='say what would be built, and why')
    parser.add_argument('--json', default='', metavar='FILE', help='write records; - = stdout')


def run(args: argparse.Namespace) -> int:
    """Build, and say what was built."""
    if find_spec('onnx') is None:
        raise ConfigError("build needs onnx, which is not installed: pip install '.[trt-build]'.")
    from vla_trt_ros.export.precision import precision_row
    from vla_trt_ros.export.trt.bundle_build import Wanted, choices, plan_jobs, run_jobs
    from vla_trt_ros.export.trt.targets import choose_builder, local_target

    platform = load_platform(args.platform)
    target = args.target or platform.target
    if target not in targets():
        raise ConfigError(f'--target {target!r} is none of {", ".join(targets())}.')
    if args.precision:
        precision_row(args.precision)
    if args.workspace < 0:
        raise ConfigError(f'--workspace {args.workspace} GiB is negative; leave it out for none.')
    wanted = Wanted(
        stages=tuple(args.stage),
        precision=args.precision or None,
        prompt_tokens=args.prompt_tokens,
        num_steps=args.steps,
        workspace_bytes=round(args.workspace * 2**30),
    )
    path = find_file('bundles', args.bundle, '')
    trt = choose_builder(target, path, args.builder, local_target())
    bundle = open_bundle(path)
    precisions = choices(platform, wanted, bundle.stages)
    jobs = plan_jobs(bundle, precisions, target, wanted, trt)
    rows: list[dict[str, object]] = []
    progress = Progress(len(jobs))

    def report(job: Job, record: EngineRecord | None) -> None:
        if record is None:
            progress.begins(job.name, job.key.precision, job.reason)
        else:
            progress.done(job.name, record, built=bool(job.reason))
            rows.append({'file': job.entry.file, 'built': bool(job.reason), **asdict(record)})

    out = sys.stderr if args.json == '-' else sys.stdout
    print(f'{path} for {target} by {trt.title}', file=out)
    if args.dry_run:
        for job in jobs:
            size = f'{job.facts.weight_bytes / 1e6:9.1f} MB of weights'
            state = f'build ({job.reason})' if job.reason else 'up to date'
            print(f'{job.name:<30} {job.key.precision:<6} {size}  {state}', file=out)
            rows.append({'stage': job.name, 'reason': job.reason, **asdict(job.key)})
    else:
        run_jobs(bundle, jobs, trt, report)
        built = sum(bool(job.reason) for job in jobs)
        print(f'{built} built, {len(jobs) - built} up to date', file=out)
    if args.json:
        text = json.dumps(rows, indent=1) + '\n'
        if args.json == '-':
            print(text, end='')
        else:
            Path(args.json).write_text(text, encoding='utf-8')
    return 0


class Progress:
    """A line on stderr before each engine and its outcome behind it."""

    def __init__(self, count: int) -> None:
        self._count, self._number = count, 0

    def begins(self, name: str, precision: str, reason: str) -> None:
        """An engine is being built."""
        text = f'[{self._number + 1:2}/{self._count}] {name} {precision} ({reason}) ... '
        print(text, end='', file=sys.stderr, flush=True)

    def done(self, name: str, record: EngineRecord, *, built: bool) -> None:
        """It is there."""
        self._number += 1
        if not built:
            text = f'[{self._number:2}/{self._count}] {name} {record.key.precision}: up to date'
        else:
            text = (
                f'{record.seconds:.1f} s, {record.plan_bytes / 1e6:.1f} MB, '
                f'{_count(record.layers)} layers, {_count(record.fused_attentions)} of '
                f'{_count(record.attentions)} attentions fused, peak memory '
                f'{record.peak_memory_bytes / 1e9:.2f} GB'
            )
        print(text, file=sys.stderr, flush=True)


def _count(number: int | None) -> str:
    return '?' if number is None else str(number)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r}: write numbers with commas, such as 48,200'
        ) from None
