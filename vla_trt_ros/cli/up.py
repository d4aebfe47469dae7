"""Start the nodes of a robot, as ``ros2 launch vla_trt_ros pi05.launch.py`` does, with the same
arguments (name:=value), and stop them all on Ctrl-C or when one of them ends.
"""

from __future__ import annotations

import argparse
import signal
import threading

from vla_trt_ros.bringup import ARGUMENTS, choices_of, describe, parse
from vla_trt_ros.cli.processes import Children


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The launch arguments, as words."""
    rows = '\n'.join(
        f'  {a.name + ":=" + a.default:<22} {a.description}\n{"":<25}{choices_of(a)}'
        for a in ARGUMENTS
    )
    parser.epilog = f'arguments and their defaults:\n{rows}'
    parser.add_argument('arguments', nargs='*', metavar='name:=value')


def run(args: argparse.Namespace) -> int:
    """Start, wait, stop.

    Status 0 after a signal; otherwise that of the child that ended: 1 where that was 0, and
    128 + n, as in a shell, where signal n killed it.
    """
    system = describe(parse(args.arguments))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    for note in system.notes:
        print(note, flush=True)
    with Children(system) as children:
        while not stop.wait(0.2):
            ended = children.ended()
            if ended is not None:
                name, status = ended
                print(f'{name} ended with status {status}: stopping the others', flush=True)
                return 128 - status if status < 0 else status or 1
    return 0
