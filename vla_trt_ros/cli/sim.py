"""The simulator without ROS: judge a policy by success, in a closed loop."""

from __future__ import annotations

import argparse
from importlib import import_module

COMMANDS = {
    'eval': 'success of a policy per task, in a closed loop on held-out seeds',
    'record': 'demonstrations of the tasks as a LeRobot data set',
}
"""Subcommand to its summary; each is a module cli/sim_<name>.py, shaped as a verb."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands, each with its own arguments."""
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name, summary in COMMANDS.items():
        module = import_module(f'vla_trt_ros.cli.sim_{name}')
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run_command=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the chosen subcommand; its exit status."""
    status: int = args.run_command(args)
    return status
