"""Does the policy do the task? Closed-loop episodes in a simulator, episode k on seed S + k, and
the share that succeeds per task, step count and precision, with its 95 % interval.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is judged, on what, and where the results go."""
    parser.add_argument('--env', default='metaworld', help='simulator')


def run(args: argparse.Namespace) -> int:
    """Run the episodes, print the table, write the files."""
    return 0
