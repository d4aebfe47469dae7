"""launch/pi05.launch.py: its arguments, and a system that really starts and ends."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip('launch_ros', reason='needs ros2 launch, which is in no wheel')

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.utilities import perform_substitutions
from ros_system import Client

from vla_trt_ros.bringup import ARGUMENTS
from vla_trt_ros.msg import ActionChunk
from vla_trt_ros.nodes.publish import COMMAND_QOS

pytestmark = [pytest.mark.launch, pytest.mark.ros]
FILE = Path(__file__).parents[2] / 'launch' / 'pi05.launch.py'
ROS2 = shutil.which('ros2')


@pytest.fixture(scope='module')
def description():
    spec = importlib.util.spec_from_file_location('pi05_launch', FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def test_arguments_are_those_of_bringup(description):
    declared = [e for e in description.entities if isinstance(e, DeclareLaunchArgument)]
    context = LaunchContext()
    assert [a.name for a in declared] == [a.name for a in ARGUMENTS]
    for found, wanted in zip(declared, ARGUMENTS, strict=True):
        assert perform_substitutions(context, found.default_value) == wanted.default
        assert tuple(found.choices or ()) == wanted.choices
        assert found.description.startswith(wanted.description)


needs_ros2 = pytest.mark.skipif(ROS2 is None, reason='needs the command ros2')


def launch(*words, file=('vla_trt_ros', 'pi05.launch.py')):
    prefix = str(Path(ROS2).parents[1])
    environment = {'AMENT_PREFIX_PATH': prefix, **os.environ}
    # In a session of its own: a shell's background processes ignore SIGINT.
    return subprocess.Popen(
        [ROS2, 'launch', *file, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def in_session(session):
    """Process ids of the session that ``launch`` opened."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            fields = text.rpartition(')')[2].split()
            if int(fields[3]) == session and fields[0] != 'Z':
                found.append(int(stat.parent.name))
    return found


@needs_ros2
@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['num_steps:=4'], 'Argument "num_steps" provided value "4" is not valid'),
        (['num_step:=3'], "unknown argument 'num_step'; did you mean num_steps?"),
        (['platform:=xavier'], 'config/platforms/xavier.yaml does not exist; known: cpu'),
        (['cameras:=top=/x'], "no view 'top'; it has base, wrist"),
        (['sim:=true', 'task:=fly'], "task 'fly' is none of"),
        (['bundle:=nope'], 'bundles/nope does not exist; known: nano'),
    ],
)
def test_wrong_value_is_refused_by_name_with_status_1(words, message):
    process = launch(*words)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1, text
    assert message in text
    assert 'Traceback' not in text
    assert in_session(process.pid) == []


@needs_ros2
@pytest.mark.skipif(shutil.which('rviz2') is not None, reason='rviz2 is installed')
def test_missing_viewer_is_told_before_anything_starts():
    process = launch('rviz:=true')
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'rviz2 is not installed: install the package rviz2' in text
    assert 'process started' not in text


@needs_ros2
@pytest.mark.parametrize('whole_group', [True, False], ids=['group', 'launch-alone'])
def test_chunks_come_and_ctrl_c_ends_all_cleanly(whole_group):
    if importlib.util.find_spec('metaworld') is None:
        pytest.skip("needs the simulator: pip install '.[sim]'")
    with Client() as client:
        chunks = client.hear(ActionChunk, '/left/action_chunk', COMMAND_QOS)
        process = launch('sim:=true', 'num_steps:=3', 'namespace:=left', 'prompt:=yes')
        try:
            client.until(lambda: chunks, 60, 'a chunk')
            assert chunks[-1].num_steps == 3
            if whole_group:
                os.killpg(process.pid, signal.SIGINT)
            else:
                process.send_signal(signal.SIGINT)
            text, _ = process.communicate(timeout=30)
        finally:
            for pid in in_session(process.pid):
                os.kill(pid, signal.SIGKILL)
    assert process.returncode == 0, text
    assert text.count('process has finished cleanly') == 3, text
    assert 'Traceback' not in text
    assert 'process has died' not in text


@needs_ros2
def test_node_that_dies_stops_the_others_with_status_1():
    process = launch()
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if 'loaded and warm' in line:
                break
        (policy,) = [
            pid
            for pid in in_session(process.pid)
            if 'policy_node' in Path(f'/proc/{pid}/cmdline').read_text()
        ]
        os.kill(policy, signal.SIGKILL)
        lines.append(process.communicate(timeout=30)[0])
        end = time.monotonic() + 5
        while in_session(process.pid) and time.monotonic() < end:
            time.sleep(0.1)
        left = in_session(process.pid)
    finally:
        for pid in in_session(process.pid):
            os.kill(pid, signal.SIGKILL)
    text = ''.join(lines)
    assert process.returncode == 1, text
    assert 'policy_node-2 ended with status -9' in text
    assert left == []


OUTER = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription

def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument('num_step'),
        IncludeLaunchDescription({file!r}, launch_arguments=[('bundle', 'nope')]),
    ])
"""


@needs_ros2
def test_included_by_another_file_leaves_its_words_alone(tmp_path):
    outer = tmp_path / 'outer.launch.py'
    outer.write_text(OUTER.format(file=str(FILE)))
    process = launch('num_step:=7', file=[str(outer)])
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'unknown argument' not in text
    assert 'bundles/nope does not exist' in text
