"""Judge a policy by recorded bags: what it would have commanded at every frame, how far that is
from what was done, and whether it would have been in time. Writes report.html, report.json and
per_frame.csv. What is done stays done: stop with Ctrl-C, go on with --resume.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from vla_trt_ros.bags.reader import BagReader
from vla_trt_ros.bags.topics import parse_topics
from vla_trt_ros.cli.progress import bar
from vla_trt_ros.cli.words import step_counts
from vla_trt_ros.config import RobotConfig, load_robot
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.replay.drive import Event, Latency, constant, measured
from vla_trt_ros.replay.gates import parse_gate
from vla_trt_ros.replay.kinematics import Chain
from vla_trt_ros.replay.recorded import SOURCES
from vla_trt_ros.replay.report import Report
from vla_trt_ros.replay.run import Manner, Watch
from vla_trt_ros.replay.session import NodeRunner, Request, Session
from vla_trt_ros.replay.settings import Setting
from vla_trt_ros.replay.writing import write_report

INTERRUPTED = 130
_SHOWN = ('frames', 'mae_h1', 'mae_all', 'gripper_agreement', 'seam', 'inference_p50_ms')
_SHOWN_REAL = ('latency_p50_ms', 'missed_rate', 'starved_s')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which bags, which policies, what is asked of them, and where the report goes."""
    add = parser.add_argument
    add('bags', nargs='+', type=Path, metavar='BAG', help='folder, .mcap or .db3')
    add('--out', type=Path, required=True, metavar='DIR', help='where the report goes')
    add('--robot', default='metaworld', help='file of config/robots, or a path')
    add('--policy', default='pi05', help='file of config/policies, or a path')
    add('--bundle', default='', help="name or path (default: the policy file's)")
    add('--against', default='', metavar='BUNDLE', help='another bundle, to compare with')
    add('--platform', default='cpu', help='file of config/platforms, or a path')
    add('--steps', default='10', help='denoise step counts, with commas')
    add('--precision', default='', help="with commas: fp32,int8 (default: the platform's)")
    add(
        '--topic',
        action='append',
        default=[],
        metavar='ROLE=TOPIC',
        help='a view, joints, command, chunk or prompt that is not where the robot file says',
    )
    add('--prompt', default='', help="told in place of the recording's")
    add('--actions', choices=SOURCES, help='what counts as done (default: the first there is)')
    add(
        '--clock',
        choices=('fast', 'real'),
        default='fast',
        help='fast: every frame pair; real: those that inference would have got to',
    )
    add(
        '--latency-ms',
        type=float,
        metavar='MS',
        help='inference takes this long on the real clock (default: as long as it does here)',
    )
    add('--through-node', action='store_true', help='publish the bag to a policy node; needs ROS')
    add('--noises', type=int, default=1, metavar='N', help='noise seeds, all over every frame')
    add('--seed', type=int, default=0, help='the first of them')
    add('--every', type=int, default=1, metavar='K', help='judge each K-th pair')
    add('--urdf', type=Path, metavar='FILE', help='for the error of the tip')
    add('--tip', default='', metavar='LINK', help='link of the URDF')
    add(
        '--gate',
        action='append',
        default=[],
        metavar='METRIC<=VALUE',
        help="status 1 unless it holds: 'mae_h1<=0.02'; may be given several times",
    )
    add('--resume', action='store_true', help='keep the parts that are done')


def run(args: argparse.Namespace) -> int:
    """Replay, write the report, hold the gates; status 1 where one fails, 130 after Ctrl-C."""
    session = Session(_request(args), resume=args.resume)
    try:
        session.run(_watch, _node_runner() if args.through_node else None)
    except KeyboardInterrupt:
        print(f'\nstopped; what is whole is in {args.out}: --resume goes on')
        return INTERRUPTED
    report = session.report()
    print(_table(report))
    for path in write_report(args.out, report, session.folders()):
        print(f'wrote {path}')
    for verdict in report.verdicts:
        print(verdict)
    return 0 if all(v.passed for v in report.verdicts) else 1


def _request(args: argparse.Namespace) -> Request:
    for name in ('noises', 'every'):
        if getattr(args, name) < 1:
            raise ConfigError(f'--{name} {getattr(args, name)}: one at least.')
    if args.seed < 0:
        raise ConfigError(f'--seed {args.seed} is negative.')
    if args.every > 1 and (args.clock == 'real' or args.through_node):
        raise ConfigError('--every is of the fast clock without a node, which see every pair.')
    robot = load_robot(args.robot)
    return Request(
        bags=tuple(args.bags),
        out=args.out,
        robot=robot,
        policy=args.policy,
        bundle=args.bundle,
        against=args.against,
        platform=args.platform,
        steps=tuple(step_counts(args.steps)),
        precisions=tuple(p for p in args.precision.split(',') if p),
        topics=tuple(parse_topics(args.topic).items()),
        clock=args.clock,
        latency_ms=args.latency_ms,
        through_node=args.through_node,
        seeds=range(args.seed, args.seed + args.noises),
        tip=args.tip,
        manner=Manner(
            latency=_latency(args),
            every=args.every,
            prompt=args.prompt,
            source=args.actions,
            tip=_tip(args, robot),
        ),
        gates=tuple(parse_gate(text) for text in args.gate),
    )


def _latency(args: argparse.Namespace) -> Latency | None:
    if args.latency_ms is None:
        return measured if args.clock == 'real' else None
    if args.clock == 'fast' or args.through_node:
        raise ConfigError('--latency-ms is of --clock real without a node, which takes its own.')
    if args.latency_ms < 0:
        raise ConfigError(f'--latency-ms {args.latency_ms:g} is negative.')
    return constant(args.latency_ms)


def _tip(args: argparse.Namespace, robot: RobotConfig) -> Chain | None:
    if bool(args.urdf) != bool(args.tip):
        raise ConfigError('--urdf FILE and --tip LINK go together.')
    return Chain(args.urdf, args.tip, robot.joint_names) if args.urdf else None


def _watch(setting: Setting, bag: BagReader) -> Watch:
    def watch(events: Iterator[Event]) -> Iterator[Event]:
        return bar(events, f'{setting.name}, {bag.paths[0].name}', total=bag.messages)

    return watch


def _node_runner() -> NodeRunner:
    from vla_trt_ros.nodes.replay_part import run_part_through_node

    return run_part_through_node


def _table(report: Report) -> str:
    wide = max(len(s.name) for s in report.settings)
    real = any('starved_s' in s.summary.metrics for s in report.settings)
    shown = (*_SHOWN, *(_SHOWN_REAL if real else ()))
    lines = [' ' * wide + ''.join(f'  {n:>17}' for n in shown)]
    for s in report.settings:
        values = (s.summary.metrics.get(n) for n in shown)
        cells = ''.join(f'  {"-" if v is None else f"{v:.5g}":>17}' for v in values)
        lines.append(f'{s.name:<{wide}}{cells}')
    lines += [
        f'{c.setting} minus {c.reference}: {d.metric} {d.mean:+.3g} [{d.low:+.3g}, {d.high:+.3g}]'
        f' (95 %, {d.blocks} blocks)'
        for c in report.comparisons
        for d in c.differences[:2]
    ]
    return '\n'.join(lines)
