"""A policy node of our own to replay through: a child process that nothing else can hear.

Its names are under a namespace of their own, its clock too, so that neither a robot on the network
nor another simulation takes part.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from vla_trt_ros.config import CameraConfig, PlatformConfig, PolicyConfig, RobotConfig
from vla_trt_ros.errors import BackendError

_PATIENCE = 10.0  # seconds from SIGINT to SIGKILL


class PolicyProcess:
    """The child: ``namespace``, and whether it lives."""

    def __init__(self, child: subprocess.Popen, log: Path, namespace: str) -> None:
        self._child = child
        self._log = log
        self.namespace = namespace

    def check(self) -> None:
        """BackendError with its last words where it ended."""
        if self._child.poll() is not None:
            words = self._log.read_text(encoding='utf-8', errors='replace').splitlines()[-5:]
            raise BackendError(
                f'the policy node ended with status {self._child.returncode}: {" ".join(words)}'
            )


@contextlib.contextmanager
def policy_process(
    robot: RobotConfig,
    platform: PlatformConfig,
    policy: PolicyConfig,
    bundle: Path,
    prompt: str,
) -> Iterator[PolicyProcess]:
    """Start the node with simulated time; it is ended with the ``with`` block."""
    namespace = f'vla_trt_replay_{os.getpid()}'
    with tempfile.TemporaryDirectory(prefix='vla_trt_') as folder:
        parameters = {
            'robot': _write(folder, robot.name, asdict(own_topics(robot))),
            'platform': _write(folder, platform.name, asdict(platform)),
            'policy': _write(folder, policy.family, asdict(policy)),
            'bundle': f'{bundle}{os.sep}',
            'num_steps': policy.num_steps,
            'prompt': prompt,
            'dry_run': True,
            'use_sim_time': True,
        }
        path = _write(folder, 'parameters', {'/**': {'ros__parameters': parameters}})
        remaps = ('-r', f'__ns:=/{namespace}', '-r', f'/clock:=/{namespace}/clock')
        command = [sys.executable, '-m', 'vla_trt_ros.nodes.policy_node', '--ros-args']
        log = Path(folder) / 'log'
        with log.open('w', encoding='utf-8') as stream:
            child = subprocess.Popen(
                [*command, *remaps, '--params-file', path],
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            try:
                yield PolicyProcess(child, log, namespace)
            finally:
                _end(child)


def own_topics(robot: RobotConfig) -> RobotConfig:
    """``robot`` with topics that follow the namespace, even those that do not on the robot."""
    cameras = {
        view: CameraConfig(camera.topic.lstrip('/'), camera.compressed, camera.max_age_ms)
        for view, camera in robot.cameras.items()
    }
    return replace(robot, cameras=cameras, joint_states_topic=robot.joint_states_topic.lstrip('/'))


def _write(folder: str, name: str, data: dict) -> str:
    path = Path(folder) / f'{name}.yaml'
    path.write_text(yaml.safe_dump(_plain(data)), encoding='utf-8')
    return str(path)


def _plain(data: object) -> object:
    """Tuples as lists, which YAML has."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    return [_plain(v) for v in data] if isinstance(data, list | tuple) else data


def _end(child: subprocess.Popen) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
