"""Nodes as processes of their own, and a client that hears what they publish."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import rclpy
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions


def command(module: str, **parameters: object) -> list[str]:
    words = [sys.executable, '-m', f'vla_trt_ros.nodes.{module}', '--ros-args']
    for name, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        words += ['-p', f'{name}:={text}' if text else f"{name}:=''"]
    return words


@contextlib.contextmanager
def running(module: str, **parameters: object) -> Iterator[subprocess.Popen[str]]:
    """A node in a process of its own; SIGINT at the end, SIGKILL if it does not listen."""
    process = subprocess.Popen(
        command(module, **parameters), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    log: deque[str] = deque(maxlen=200)
    reader = threading.Thread(target=lambda: log.extend(process.stderr))
    reader.start()
    process.log = log  # type: ignore[attr-defined]
    try:
        yield process
    finally:
        if process.poll():
            print(module, 'ended with status', process.returncode, *log)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join()


class Client:
    """A node that keeps what it hears, per topic: newest last."""

    def __init__(self) -> None:
        # A context of its own, so that two clients can live in one test.
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node('test_client', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin)
        self._thread.start()
        self.heard: dict[str, deque] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        self._context.try_shutdown()

    def hear(self, kind: type, topic: str, qos: object) -> deque:
        messages: deque = deque(maxlen=500)
        self.heard[topic] = messages
        self.node.create_subscription(kind, topic, lambda msg: messages.append(msg), qos)
        return messages

    def until(
        self, condition: Callable[[], object], timeout: float = 10.0, what: str = ''
    ) -> None:
        """Wait until ``condition()`` is true; AssertionError with ``what`` otherwise."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.01)
        raise AssertionError(f'not within {timeout} s: {what or condition}')

    def next(self, messages: deque, timeout: float = 10.0):
        """The first message that comes from now on."""
        messages.clear()
        self.until(lambda: messages, timeout, 'a message')
        return messages[0]

    def silent(self, messages: deque, seconds: float) -> bool:
        """True if nothing is heard for ``seconds``."""
        messages.clear()
        time.sleep(seconds)
        return not messages

    def call(self, kind: type, name: str, request: object, timeout: float = 15.0):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(timeout), f'no service {name}'
        future = client.call_async(request)
        self.until(future.done, timeout, f'an answer of {name}')
        self.node.destroy_client(client)
        return future.result()

    def set_parameter(self, node: str, name: str, value: object):
        """The SetParametersResult of ``node``."""
        msg: ParameterMsg = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[msg])
        return self.call(SetParameters, f'{node}/set_parameters', request).results[0]
