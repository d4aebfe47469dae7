"""The whole robot in one process: the wiring of compose.py, simulator included."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
if find_spec('metaworld') is None:  # not imported here: MuJoCo would choose its OpenGL
    pytest.skip("needs the simulator: pip install '.[sim]'", allow_module_level=True)

from ros_system import Client, command, running
from trajectory_msgs.msg import JointTrajectory

from vla_trt_ros.datatypes import State
from vla_trt_ros.msg import PolicyStatus
from vla_trt_ros.nodes.publish import COMMAND_QOS, LATCHED_QOS

pytestmark = pytest.mark.ros

TRAJECTORY = 'joint_trajectory_controller/joint_trajectory'


def test_camera_to_controller_in_one_process(tmp_path):
    words = command('compose', dry_run=False, num_steps=1, image_width=112, image_height=112)
    words[3:3] = ['sim', 'command', 'policy']
    log = (tmp_path / 'log').open('w+')
    process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        with Client() as client:
            status = client.hear(PolicyStatus, 'command/status', LATCHED_QOS)
            commands = client.hear(JointTrajectory, TRAJECTORY, COMMAND_QOS)
            client.until(
                lambda: status and status[-1].state == State.RUNNING, 30, 'a running command node'
            )
            trajectory = client.next(commands)
        assert list(trajectory.joint_names) == ['hand_x', 'hand_y', 'hand_z', 'gripper']
        assert len(trajectory.points) >= 5
    finally:
        process.terminate()
        assert process.wait(20) == 0
    log.seek(0)
    assert 'Traceback' not in log.read()


def test_unknown_node_is_refused_by_name():
    words = [sys.executable, '-m', 'vla_trt_ros.nodes.compose', 'polcy']
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "'polcy'" in done.stderr


def test_by_default_it_is_the_command_and_the_policy_node():
    with running('compose'), Client() as client:
        nodes = client.node.get_node_names
        client.until(lambda: {'command', 'policy'} <= set(nodes()), 20, 'both nodes')
        assert 'sim' not in nodes()
