"""vla-trt up: what it starts runs, and all of it ends however it ends."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

from ros_system import Client, running

from vla_trt_ros.bringup import describe
from vla_trt_ros.cli.processes import Children
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.messages import chunk_from_msg
from vla_trt_ros.msg import ActionChunk
from vla_trt_ros.nodes.publish import COMMAND_QOS

pytestmark = pytest.mark.ros


class Up:
    """``vla-trt up`` as a process; ``log`` is what it and its children said."""

    def __init__(self, *words):
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'vla_trt_ros.cli.main', 'up', *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines = []
        self._reader = threading.Thread(target=lambda: self._lines.extend(self.process.stdout))
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(15)

    @property
    def log(self):
        return ''.join(self._lines)

    def wait_for(self, text):
        end = time.monotonic() + 30
        while text not in self.log:
            assert time.monotonic() < end, f'{text!r} is not in\n{self.log}'
            time.sleep(0.05)

    def children(self):
        pid = self.process.pid
        return [int(p) for p in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]

    def end(self):
        """Its status, after all that it said was read."""
        status = self.process.wait(20)
        self._reader.join(15)
        return status


def gone(pids):
    end = time.monotonic() + 10
    while any(Path(f'/proc/{pid}').exists() for pid in pids):
        if time.monotonic() > end:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_nodes_start_in_their_namespace_and_a_signal_ends_all(number):
    words = ['num_steps:=3', 'namespace:=left', 'cameras:=base=/base/image_raw']
    with running('pattern_node'), Client() as client, Up(*words) as up:
        up.wait_for('loaded and warm')
        nodes = client.node.get_node_names_and_namespaces
        client.until(lambda: {('policy', '/left'), ('command', '/left')} <= set(nodes()))
        children = up.children()
        assert len(children) == 2
        up.process.send_signal(number)
        assert up.end() == 0, up.log
        assert gone(children)
    assert 'dry_run: nothing is sent to a controller' in up.log
    assert 'Traceback' not in up.log


def test_arguments_reach_the_chunks():
    with running('pattern_node'), Client() as client, Up('num_steps:=3') as up:
        chunks = client.hear(ActionChunk, 'action_chunk', COMMAND_QOS)
        client.until(lambda: chunks, 30, 'a chunk')
        chunk = chunk_from_msg(chunks[-1])
        assert chunk.num_steps == 3
        up.process.send_signal(signal.SIGINT)
        assert up.end() == 0, up.log


def test_child_that_dies_stops_the_others():
    with Up() as up:
        up.wait_for('loaded and warm')
        command, policy = sorted(up.children())
        os.kill(policy, signal.SIGKILL)
        assert up.end() == 128 + signal.SIGKILL
        assert gone([command, policy])
    assert 'policy ended with status -9: stopping the others' in up.log


def test_child_that_does_not_start_gives_its_status():
    with Up('bundle:=nope') as up:
        assert up.end() == 1
    assert 'bundles/nope does not exist; known: nano' in up.log
    assert 'policy ended with status 1: stopping the others' in up.log
    assert 'Traceback' not in up.log


def test_children_end_with_a_parent_that_was_killed():
    with Up() as up:
        up.wait_for('loaded and warm')
        children = up.children()
        up.process.kill()
        assert gone(children)
    assert 'INACTIVE' in up.log  # the gate had time to brake


def test_missing_viewer_is_told_before_anything_starts(monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    started = []
    monkeypatch.setattr(subprocess, 'Popen', lambda *a, **k: started.append(a))
    with (
        pytest.raises(ConfigError, match='rviz2 is not installed: install the package rviz2'),
        Children(describe({'rviz': 'true'})),
    ):
        pass
    assert started == []


def test_viewer_that_is_closed_stops_nothing(tmp_path, monkeypatch):
    viewer = tmp_path / 'rviz2'
    viewer.write_text('#!/bin/sh\nexit 0\n')
    viewer.chmod(0o755)
    monkeypatch.setattr(shutil, 'which', lambda name: str(viewer))
    with Children(describe({'rviz': 'true'}), subprocess.DEVNULL) as children:
        end = time.monotonic() + 5
        while children._running['rviz'].poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert children._running['rviz'].poll() == 0
        assert children.ended() is None
