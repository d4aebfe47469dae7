"""Record the topics of a robot into an MCAP bag, where ros2 bag is missing: cameras, joint states,
commands, chunks, timing and prompt. --print says how ros2 bag records the same.

Ctrl-C or SIGTERM ends the bag; a kill, or a full disk, costs the last second at most.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vla_trt_ros.bags.topic_list import command_line, read_list, topics_of
from vla_trt_ros.config import load_robot
from vla_trt_ros.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is recorded, where to, and how long."""
    parser.add_argument('--robot', default='metaworld', help='robot file: a name or a path')
    parser.add_argument(
        '--topics',
        type=Path,
        metavar='FILE',
        help='record these alone: a file as config/record.yaml',
    )
    parser.add_argument('--out', type=Path, metavar='DIR', help='the bag, a new folder')
    parser.add_argument('--duration', type=float, default=0.0, help='seconds; 0: until Ctrl-C')
    parser.add_argument(
        '--split-size', type=float, default=0.0, metavar='MB', help='begin a new file behind it'
    )
    parser.add_argument('--zstd', action='store_true', help='compress chunks: costs CPU time')
    parser.add_argument(
        '--print', action='store_true', dest='show', help='print the line for ros2 bag and end'
    )


def run(args: argparse.Namespace) -> int:
    """Record until told to end; 1 where nothing came."""
    topics = read_list(args.topics) if args.topics else topics_of(load_robot(args.robot))
    if args.show:
        print(command_line(topics))
        return 0
    if args.out is None:
        raise ConfigError('--out DIR says where the bag goes.')
    if args.duration < 0 or args.split_size < 0:
        raise ConfigError(
            f'--duration {args.duration:g} and --split-size {args.split_size:g} must not be '
            'negative; 0 is without end.'
        )
    return _record(args, topics)


def _record(args: argparse.Namespace, topics: tuple[str, ...]) -> int:
    from vla_trt_ros.bags.reader import check_installed
    from vla_trt_ros.bags.writer import BagWriter
    from vla_trt_ros.nodes.recorder import Recorder
    from vla_trt_ros.nodes.run import run_node

    check_installed()
    bag = BagWriter(args.out, zstd=args.zstd, split_bytes=round(args.split_size * 1e6))
    recorders: list[Recorder] = []

    def make() -> Recorder:
        recorders.append(Recorder(bag, topics))
        return recorders[0]

    try:
        run_node(make, duration=args.duration or None)
    finally:
        bag.close()
    counts = {name: n for name, n in bag.counts.items() if n}
    for name, n in counts.items():
        print(f'{n:8d}  {name}')
    silent = recorders[0].silent if recorders else topics
    if silent:
        print(f'no message on {", ".join(silent)}', file=sys.stderr)
    print(f'{args.out}: {sum(counts.values())} messages, {bag.size / 1e6:.1f} MB')
    return 0 if counts else 1
