"""Normalisation statistics of bags, as openpi computes them: norm_stats.json for training.

State and actions are taken at the robot's control rate; an action is what was commanded, else the
chunks that ran, else where the joints went. Rows of a chunk that are relative to the state
(--delta, or the layout of --bundle) are counted as such.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vla_trt_ros.config import find_file, load_robot
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.tables import grid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which bags, for which policy, and where to."""
    parser.add_argument('bags', nargs='+', type=Path, metavar='BAG')
    parser.add_argument('--robot', required=True, help='robot file: a name or a path')
    parser.add_argument('--bundle', default='', help='take the columns of its policy')
    parser.add_argument(
        '--horizon', type=int, default=50, help='rows of a chunk (default: %(default)s)'
    )
    parser.add_argument(
        '--delta', default='', metavar='JOINTS', help="relative ones, with commas, or 'all'"
    )
    parser.add_argument('--actions', choices=('command', 'chunk', 'joints'), help='what was done')
    parser.add_argument('--topic', action='append', default=[], metavar='ROLE=TOPIC')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE')


def run(args: argparse.Namespace) -> int:
    """Read the bags once, write the file, print it as a table."""
    from vla_trt_ros.bags.reader import open_bag
    from vla_trt_ros.bags.topics import parse_topics
    from vla_trt_ros.conversion.moments import Moments
    from vla_trt_ros.conversion.statistics import dataset_stats
    from vla_trt_ros.preprocess.normalize import save_norm_stats
    from vla_trt_ros.replay.run import choose_source

    if args.horizon < 1:
        raise ConfigError(f'--horizon {args.horizon} must be 1 at least.')
    robot = load_robot(args.robot)
    state: tuple[str, ...] = robot.state_names
    if args.bundle:
        from vla_trt_ros.bundle import open_bundle

        layout = open_bundle(find_file('bundles', args.bundle, '')).layout
        state, columns = layout.state, [(c.joint, c.kind) for c in layout.actions]
    else:
        relative = robot.joint_names if args.delta == 'all' else args.delta.split(',')
        unknown = sorted({j for j in relative if j} - set(robot.joint_names))
        if unknown:
            raise ConfigError(
                f'--delta {unknown[0]}: robot {robot.name} has {", ".join(robot.joint_names)}.'
            )
        columns = [(j, 'delta' if j in relative else 'absolute') for j in robot.joint_names]
    bag = open_bag(args.bags, robot, parse_topics(args.topic), need=('joints',))
    moments = Moments(bag, robot, choose_source(bag, args.actions))
    stats, steps = dataset_stats(moments, robot, args.horizon, state, columns)
    for line in bag.notes():
        print(line)
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        save_norm_stats(args.out, stats)
    except OSError as error:
        raise ConfigError(f'{args.out} cannot be written ({error.strerror}).') from error
    fields = ('mean', 'std', 'q01', 'q99')
    table: list[tuple[str, ...]] = [('', *fields)]
    for key, names in (('state', state), ('actions', [joint for joint, _ in columns])):
        for i, name in enumerate(names):
            values = (getattr(stats[key], field)[i] for field in fields)
            table.append((f'{key} {name}', *(f'{value:.4f}' for value in values)))
    for line in grid(table):
        print(line)
    left = ', '.join(f'{n} {name}' for name, n in moments.counts.counts.items())
    print(f'{args.out}: {steps} steps{f"; left out: {left}" if left else ""}')
    return 0
