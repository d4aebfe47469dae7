"""The simulator as a process of its own, driven over topics."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from vla_trt_ros.errors import BackendError
from vla_trt_ros.sim.gl import choose_gl

try:
    import rclpy
    from sensor_msgs.msg import Image, JointState
    from std_msgs.msg import Bool, Float64MultiArray, String
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    from vla_trt_ros.messages import frame_from_image, joints_from_msg
    from vla_trt_ros.nodes.publish import (
        COMMAND_QOS,
        EVENT_QOS,
        IMAGE_QOS,
        LATCHED_QOS,
        STATE_QOS,
    )

    choose_gl()
except (ImportError, BackendError) as error:
    pytest.skip(f'no simulator node here: {error}', allow_module_level=True)

pytestmark = pytest.mark.ros


def start(namespace, *params):
    command = [sys.executable, '-m', 'vla_trt_ros.nodes.sim_node', '--ros-args']
    command += ['-r', f'__ns:={namespace}']
    for param in params:
        command += ['-p', param]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def stop(process):
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=20)
    return process.returncode, log


class Watcher:
    """Keeps the newest message of each topic and counts them."""

    def __init__(self, namespace):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('watcher', namespace=namespace, context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.last, self.count, self.topics = {}, {}, []
        for kind, topic, qos in (
            (Image, 'base/image_raw', IMAGE_QOS),
            (Image, 'wrist/image_raw', IMAGE_QOS),
            (JointState, 'joint_states', STATE_QOS),
            (String, 'sim/task_prompt', LATCHED_QOS),
            (Bool, 'sim/success', LATCHED_QOS),
        ):
            self.node.create_subscription(kind, topic, self._keeper(topic), qos)
            self.topics.append(topic)

    def _keeper(self, topic):
        def keep(msg):
            self.last[topic] = msg
            self.count[topic] = self.count.get(topic, 0) + 1

        return keep

    def until(self, condition, what, timeout=20.0):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f'waited {timeout} s for {what}'
            self.executor.spin_once(timeout_sec=0.1)

    def joint(self, name):
        msg = self.last['joint_states']
        return msg.position[msg.name.index(name)]

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def watcher():
    watcher = Watcher(f'/sim_test_{os.getpid()}')
    yield watcher
    watcher.close()


def test_it_is_a_robot_on_topics_and_ends_cleanly(watcher):
    namespace = watcher.node.get_namespace()
    sim = start(namespace, 'task:=pick-place', 'image_width:=64', 'image_height:=48')
    try:
        watcher.until(lambda: watcher.count.get('wrist/image_raw', 0) > 5, 'images')
        watcher.until(lambda: set(watcher.last) == set(watcher.topics), 'every topic')
        base, wrist = watcher.last['base/image_raw'], watcher.last['wrist/image_raw']
        assert (base.width, base.height, base.step, base.encoding) == (64, 48, 192, 'rgb8')
        assert base.header.frame_id == 'base_camera_optical_frame'
        assert frame_from_image(base, 0).data.std() > 10
        assert bytes(base.data) != bytes(wrist.data)
        age = watcher.node.get_clock().now().nanoseconds - frame_from_image(base, 0).stamp_ns
        assert 0 < age < 1e9
        sample = joints_from_msg(watcher.last['joint_states'], 0)
        assert sample.names[:4] == ('hand_x', 'hand_y', 'hand_z', 'gripper')
        assert sample.velocities is not None
        assert watcher.last['sim/task_prompt'].data == 'pick up the puck and place it at the goal'
        assert watcher.last['sim/success'].data is False

        commands = watcher.node.create_publisher(
            JointTrajectory, 'joint_trajectory_controller/joint_trajectory', COMMAND_QOS
        )
        watcher.until(commands.get_subscription_count, 'the controller')
        msg = JointTrajectory(joint_names=['gripper', 'hand_z', 'hand_y', 'hand_x'])
        point = JointTrajectoryPoint(positions=[0.0, 0.25, 0.65, 0.06])
        point.time_from_start.sec = 1
        msg.points = [point]
        commands.publish(msg)
        watcher.until(lambda: abs(watcher.joint('hand_x') - 0.06) < 0.01, 'the hand to move')
        watcher.until(lambda: abs(watcher.joint('hand_y') - 0.65) < 0.01, 'the hand to move')
        watcher.until(lambda: watcher.joint('gripper') < 0.05, 'the gripper to close')

        tasks = watcher.node.create_publisher(String, 'sim/task', EVENT_QOS)
        watcher.until(tasks.get_subscription_count, 'the task topic')
        tasks.publish(String(data='drawr-open'))
        tasks.publish(String(data='drawer-open'))
        watcher.until(
            lambda: watcher.last['sim/task_prompt'].data == 'open the drawer', 'the new task'
        )
        images = watcher.count['base/image_raw']
        watcher.until(lambda: watcher.count['base/image_raw'] > images + 5, 'images again')
        assert watcher.joint('gripper') > 0.9  # a new episode, and the command forgotten
    finally:
        code, log = stop(sim)
    assert code == 0, log
    assert 'Traceback' not in log
    assert "did you mean 'drawer-open'" in log


def test_it_plays_a_position_controller_and_bgr_cameras(watcher):
    namespace = watcher.node.get_namespace()
    sim = start(namespace, 'controller:=position', 'encoding:=bgr8', 'episode_steps:=40')
    try:
        watcher.until(lambda: set(watcher.last) == set(watcher.topics), 'every topic')
        base = watcher.last['base/image_raw']
        pixels = np.frombuffer(base.data, np.uint8).reshape(base.height, base.width, 3).astype(int)
        assert base.encoding == 'bgr8'
        # The red arm: much more of the last channel than of the first.
        assert ((pixels[..., 2] > 90) & (pixels[..., 0] < 60)).sum() > 500
        commands = watcher.node.create_publisher(
            Float64MultiArray, 'forward_position_controller/commands', COMMAND_QOS
        )
        watcher.until(commands.get_subscription_count, 'the controller')

        def at(x):
            commands.publish(Float64MultiArray(data=[0.05, 0.65, 0.25, 1.0]))
            return abs(watcher.joint('hand_x') - x) < 0.01

        watcher.until(lambda: at(0.05), 'the hand to move')
        watcher.until(lambda: abs(watcher.joint('hand_x')) < 0.01, 'the episode to be reset')
    finally:
        code, log = stop(sim)
    assert code == 0, log


@pytest.mark.parametrize(
    ('params', 'message'),
    [
        (['task:=reech'], "did you mean 'reach'"),
        (['encoding:=yuv'], "encoding 'yuv' is none of rgb8, bgr8"),
    ],
)
def test_a_wrong_parameter_ends_it_in_one_line(params, message):
    sim = start(f'/sim_test_{os.getpid()}', *params)
    _, log = sim.communicate(timeout=30)
    assert sim.returncode == 1
    assert message in log
    assert 'Traceback' not in log
