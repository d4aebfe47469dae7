"""A Bringup as child processes of this one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from vla_trt_ros.bringup import Bringup, Process
from vla_trt_ros.errors import ConfigError

_PR_SET_PDEATHSIG = 1
_PATIENCE = 10.0  # seconds from SIGINT to SIGKILL: engines need time to go


class Children:
    """The processes of ``system`` while the ``with`` block runs; all are ended behind it.

    ``output`` is what subprocess takes for stdout and stderr: None shares this terminal.
    """

    def __init__(self, system: Bringup, output: Any = None) -> None:
        self._system = system
        self._output = output
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix='vla_trt_')

    def __enter__(self) -> Children:
        environment = {**self._system.environment, **os.environ}
        try:
            commands = [(process, self._command(process)) for process in self._system.processes]
            for process, command in commands:
                # A session of its own: Ctrl-C reaches the children once, from us, in order.
                self._running[process.name] = subprocess.Popen(
                    command,
                    env=environment,
                    stdout=self._output,
                    stderr=self._output,
                    start_new_session=True,
                    preexec_fn=_end_with_parent,
                )
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def ended(self) -> tuple[str, int] | None:
        """Name and status of an essential child that ended, if one did."""
        for process in self._system.processes:
            status = self._running[process.name].poll()
            if process.essential and status is not None:
                return process.name, status
        return None

    def pids(self) -> dict[str, int]:
        """Process ids by node name."""
        return {name: child.pid for name, child in self._running.items()}

    def stop(self) -> dict[str, int]:
        """End every child, last started first, and give their statuses."""
        for child in reversed(self._running.values()):
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _PATIENCE
        for child in self._running.values():
            _end(child, deadline)
        self._folder.cleanup()
        return {name: int(child.returncode) for name, child in self._running.items()}

    def _command(self, process: Process) -> list[str]:
        if process.package == 'vla_trt_ros':
            command = [sys.executable, '-m', f'vla_trt_ros.nodes.{process.module}']
        else:
            found = shutil.which(process.executable)
            if found is None:
                raise ConfigError(
                    f'{process.executable} is not installed: install the package '
                    f'{process.package} of your ROS distribution.'
                )
            command = [found]
        ros = ['--log-level', self._system.log_level]
        if not process.composed:
            ros += ['-r', f'__node:={process.name}']
        if self._system.namespace:
            ros += ['-r', f'__ns:=/{self._system.namespace}']
        if self._system.params_file:
            ros += ['--params-file', self._system.params_file]
        if process.parameters:
            # A file, not -p: it keeps every value's type.
            path = Path(self._folder.name) / f'{process.name}.yaml'
            data = {'/**': {'ros__parameters': dict(process.parameters)}}
            path.write_text(yaml.safe_dump(data), encoding='utf-8')
            ros += ['--params-file', str(path)]
        return [*command, *process.arguments, '--ros-args', *ros]


def _end(child: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        child.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _end_with_parent() -> None:
    """Let Linux send SIGINT if the parent is killed: no arm moves on without its supervisor."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
