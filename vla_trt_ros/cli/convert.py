"""Convert between bags and LeRobot data sets.

  vla-trt convert SET --to bag --robot metaworld --out bags         a bag an episode
  vla-trt convert BAG... --to lerobot --robot metaworld --out SET   an episode a prompt or silence

Bags become a data set at the robot's control rate through LeRobot's own library, which must be
installed: pip install lerobot. Data sets with pictures as images become bags without it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vla_trt_ros.config import RobotConfig, load_robot
from vla_trt_ros.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is converted, to what, and where to."""
    parser.add_argument('source', nargs='+', type=Path, help='bags, or one data set')
    parser.add_argument('--to', choices=('bag', 'lerobot'), required=True)
    parser.add_argument('--robot', required=True, help='robot file: a name or a path')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='a new folder')
    parser.add_argument('--zstd', action='store_true', help='to bag: compress chunks')
    parser.add_argument('--task', default='', help='to lerobot: the prompt of bags without one')
    parser.add_argument('--videos', action='store_true', help='to lerobot: pictures as video')
    parser.add_argument(
        '--actions', choices=('command', 'chunk', 'joints'), help='to lerobot: what was done'
    )
    parser.add_argument(
        '--topic', action='append', default=[], metavar='ROLE=TOPIC', help='to lerobot'
    )


def run(args: argparse.Namespace) -> int:
    """Convert; a line per episode."""
    robot = load_robot(args.robot)
    return _to_bags(args, robot) if args.to == 'bag' else _to_lerobot(args, robot)


def _to_bags(args: argparse.Namespace, robot: RobotConfig) -> int:
    from vla_trt_ros.conversion.dataset_to_bags import episode_bags

    if len(args.source) != 1:
        raise ConfigError(f'--to bag takes one data set, not {len(args.source)}.')
    for path in episode_bags(args.source[0], args.out, robot, zstd=args.zstd):
        print(path)
    return 0


def _to_lerobot(args: argparse.Namespace, robot: RobotConfig) -> int:
    from vla_trt_ros.bags.reader import open_bag
    from vla_trt_ros.bags.topics import parse_topics
    from vla_trt_ros.conversion.bags_to_lerobot import lerobot_episodes
    from vla_trt_ros.replay.run import choose_source

    bag = open_bag(args.source, robot, parse_topics(args.topic))
    source = choose_source(bag, args.actions)
    episodes = lerobot_episodes(bag, robot, source, args.out, task=args.task, videos=args.videos)
    total = 0
    for index, count in enumerate(episodes):
        total += count
        print(f'episode {index}: {count} frames')
    for line in bag.notes():
        print(line)
    print(f'{args.out}: {total} frames, actions from {source}')
    return 0
