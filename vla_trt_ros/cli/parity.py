"""Judge each precision of a bundle against float32, on frames that its calibration did not see:
per stage and for the whole policy. Precisions that the bundle lacks are made for the occasion.

Numbers are those of ONNX Runtime and of onnx's reference evaluator on the CPU. Exit status 1 where
the policy's mean cosine is below --gate.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_trt_ros.bundle import Bundle, open_bundle
from vla_trt_ros.cli.words import step_counts
from vla_trt_ros.config import find_file, load_robot
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.policies.base import check_num_steps
from vla_trt_ros.policies.pi05.engines import read_config
from vla_trt_ros.tables import grid

if TYPE_CHECKING:
    from vla_trt_ros.export.frames import Frames
    from vla_trt_ros.export.parity import Score

_PROMPTS = ('reach the goal', 'open the drawer and put the red block into it')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is judged, on what, and how strictly."""
    parser.add_argument('--bundle', default='nano', help='name or path (default: nano)')
    parser.add_argument(
        '--precision', default='', metavar='P,Q', help='precisions, with commas (default: all)'
    )
    parser.add_argument(
        '--frames',
        type=Path,
        metavar='PATH',
        help='folder with frames.json, LeRobot data set or rosbag (default: made-up pictures)',
    )
    parser.add_argument('--count', type=int, default=32, help='frames: half to calibrate on')
    parser.add_argument('--prompt', default='', help='for frames that have none')
    parser.add_argument('--robot', default='', help='robot file: topics of a bag')
    parser.add_argument('--steps', default='', help="step counts (default: the bundle's)")
    parser.add_argument('--gripper', default='', metavar='JOINT', help='watched for sign flips')
    parser.add_argument(
        '--gate', default='', metavar='COSINE', help='0.999, or bf16=0.999,fp8=0.99'
    )
    parser.add_argument('--json', default='', metavar='FILE', help='write the scores; - = stdout')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='write a PNG')


def run(args: argparse.Namespace) -> int:
    """Calibrate on part A, judge on part B, print, write."""
    for package in ('onnx', 'ml_dtypes'):
        if find_spec(package) is None:
            raise ConfigError(
                f"parity needs {package}, which is not installed: pip install '.[export]'."
            )
    from vla_trt_ros.export.calibration import collect_ranges
    from vla_trt_ros.export.evaluate import versions
    from vla_trt_ros.export.graphs import network_inputs
    from vla_trt_ros.export.parity import (
        Chains,
        as_json,
        failures,
        gripper_column,
        judge,
        parse_gates,
    )
    from vla_trt_ros.export.precision import PRECISIONS, precision_row

    precisions = [p for p in args.precision.split(',') if p]
    precisions = precisions or [p for p in PRECISIONS if p != 'fp32']
    for name in precisions:
        precision_row(name)
    gates = parse_gates(args.gate, precisions)
    bundle = open_bundle(find_file('bundles', args.bundle, ''))
    config = read_config(bundle)
    steps = step_counts(args.steps) or list(config.num_steps)
    for count in steps:
        check_num_steps(count, config.num_steps)
    gripper = gripper_column(bundle, args.gripper)
    frames = _frames(args, bundle)
    part_a, part_b = frames.split()
    ranges = None
    if any(PRECISIONS[p].calibrated for p in precisions):
        ranges = collect_ranges(bundle, part_a, _say)
    with tempfile.TemporaryDirectory(prefix='parity.') as folder:
        chains = Chains(bundle, Path(folder), ranges, steps)
        scores = judge(
            chains,
            network_inputs(bundle, part_b),
            precisions,
            steps,
            columns=len(bundle.layout.actions),
            gripper=gripper,
            report=_say,
        )
        made = sorted(chains.made)
    _say('')
    failed = failures(scores, gates)
    title = (
        f'bundle {bundle.name}, {len(part_b)} frames of {frames.origin} '
        f'(scales from {len(part_a)} others)'
    )
    if args.json != '-':
        print(title + '\n' + table(scores))
        for line in failed:
            print(f'FAILED {line}')
    record = {
        'bundle': bundle.name,
        'bundle_sha256': bundle.sha256,
        'frames': frames.origin,
        'calibrated_on': len(part_a),
        'judged_on': len(part_b),
        'reference': 'the float32 graphs in ONNX Runtime on the CPU',
        'judged_by': versions(),
        'made_here': made,
        'gripper': bundle.layout.actions[gripper].joint if gripper is not None else '',
        'gates': gates,
        'failed': failed,
        'scores': as_json(scores),
    }
    _write(args.json, record)
    if args.plot:
        from vla_trt_ros.viz.parity_plot import plot_parity

        print(f'wrote {plot_parity(scores, args.plot, title=title)}', file=sys.stderr)
    return 1 if failed else 0


def table(scores: list[Score]) -> str:
    """For people."""
    rows = [['precision', 'part', 'steps', 'cosine', 'worst', 'frame', 'max abs', 'flips', '']]
    for s in scores:
        flips = str(s.sign_flips) if s.steps else ''
        rows.append([s.precision, s.part, str(s.steps or ''), f'{s.cosine:.5f}', f'{s.worst:.5f}'])
        rows[-1] += [str(s.worst_frame), f'{s.max_abs:.4f}', flips, s.note]
    return '\n'.join(grid(rows))


def _frames(args: argparse.Namespace, bundle: Bundle) -> Frames:
    from vla_trt_ros.export.frames import read_frames, synthetic_frames

    if args.frames is None:
        prompts = (args.prompt,) if args.prompt else _PROMPTS
        return synthetic_frames(bundle, args.count, prompts)
    robot = load_robot(args.robot) if args.robot else None
    return read_frames(args.frames, bundle, args.count, args.prompt, robot)


def _write(where: str, record: dict[str, Any]) -> None:
    if not where:
        return
    text = json.dumps(record, indent=1) + '\n'
    if where == '-':
        print(text, end='')
        return
    Path(where).write_text(text, encoding='utf-8')
    print(f'wrote {where}', file=sys.stderr)


def _say(text: str) -> None:
    """One line on a terminal, overwritten by the next."""
    if sys.stderr.isatty():
        sys.stderr.write(f'\r{text:<60}' + ('' if text else '\r'))
