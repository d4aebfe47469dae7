"""How every node of this package starts, runs and ends."""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from vla_trt_ros.errors import ConfigError, VlaError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_GIB = 1 << 30
_LOOK_AROUND = 0.2  # seconds


def keep_freed_memory() -> None:
    """Tell glibc to reuse big blocks instead of mapping and unmapping one for every image.

    An image of a megabyte otherwise costs hundreds of page faults, three to four times the CPU of
    receiving it. Must run before the first image; other C libraries are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _GIB)
    mallopt(_M_TRIM_THRESHOLD, _GIB)


class RosLog(logging.Handler):
    """Python's log lines of this package, in ROS's log: rooms below know no ROS."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._logger = get_logger('vla_trt_ros')

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one line on."""
        text = record.getMessage()
        # A line of code each: rclpy refuses a call site that changes its severity.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)


def _wait(stop: threading.Event, duration: float | None) -> None:
    """Until ``stop``, or for ``duration`` seconds.

    Not in one wait: once a GPU's libraries are loaded, a signal may not interrupt it, and Python
    calls our handler only when this thread wakes.
    """
    end = float('inf') if duration is None else time.monotonic() + duration
    while not stop.is_set() and (left := end - time.monotonic()) > 0:
        stop.wait(min(left, _LOOK_AROUND))


def autostart(node: LifecycleNode) -> None:
    """Configure and activate ``node``, without a lifecycle manager; ConfigError where it fails."""
    for step in (node.trigger_configure, node.trigger_activate):
        if step() is not TransitionCallbackReturn.SUCCESS:
            raise ConfigError(
                f'{node.get_name()} node: not started, the reason is in the line above.'
            )


def run_node(
    factory: Callable[[], Node | Sequence[Node]],
    args: list[str] | None = None,
    *,
    duration: float | None = None,
) -> int:
    """Spin what ``factory`` makes until SIGINT, SIGTERM or ``duration`` seconds; the exit status.

    One single-threaded executor, in a thread of its own: rclpy's multi-threaded one busy-loops and
    loses images. The main thread only waits for a signal, so that the end is the same whether the
    node is idle or busy: stop the executor, join it, destroy the nodes, shut rclpy down.
    A VlaError at the start is printed without a traceback and ends with status 1.
    """
    keep_freed_memory()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    log = logging.getLogger('vla_trt_ros')
    log.setLevel(logging.INFO)
    log.addHandler(RosLog())
    nodes: list[Node] = []
    executor = SingleThreadedExecutor()
    failure: list[BaseException] = []

    def spin() -> None:
        try:
            executor.spin()
        except BaseException as error:  # a callback raised: end the process, not the thread alone
            failure.append(error)
        finally:
            stop.set()

    try:
        made = factory()
        nodes = [made] if isinstance(made, Node) else list(made)
    except VlaError as error:
        print(f'{error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    for node in nodes:
        executor.add_node(node)
    thread = threading.Thread(target=spin, name='ros-executor')
    thread.start()
    _wait(stop, duration)
    # A second Ctrl-C, which ros2 launch sends along, must not break into the clean-up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    executor.shutdown()
    thread.join()
    for node in reversed(nodes):
        node.destroy_node()
    rclpy.try_shutdown()
    if failure:
        raise failure[0]
    return 0
