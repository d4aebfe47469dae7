"""Convert between bags and LeRobot data sets.

  vla-trt convert SET --to bag --robot metaworld --out bags         a bag an episode
  vla-trt convert BAG... --to lerobot --robot metaworld --out SET   an episode a bag

Bags become a data set at the robot's control rate through LeRobot's own library, which must be
installed: pip install lerobot. Data sets with pictures as images become bags without it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vla_trt_ros.config import load_robot
from vla_trt_ros.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is converted, to what, and where to."""
    parser.add_argument(
        'source', nargs='+', type=Path, metavar='SOURCE', help='bags or a data set'
    )
    parser.add_argument('--to', choices=('bag', 'lerobot'), required=True)
    parser.add_argument('--robot', required=True, help='robot file: a name or a path')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='a new folder')
    parser.add_argument('--zstd', action='store_true', help='bags: compress their chunks')


def run(args: argparse.Namespace) -> int:
    """Convert; a line per episode."""
    robot = load_robot(args.robot)
    if len(args.source) != 1:
        raise ConfigError('--to bag takes one data set at a time.')
    from vla_trt_ros.conversion.dataset_to_bags import episode_bags

    for path in episode_bags(args.source[0], args.out, robot, zstd=args.zstd):
        print(path)
    return 0
