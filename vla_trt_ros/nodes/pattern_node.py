"""Cameras and joint states without a robot: moving test patterns at any size, rate and encoding.

For benchmarks, for trying a transport, and for seeing what a fault does: the parameter ``fault``
breaks the first camera or the joint states in the ways that real ones break.
"""

from __future__ import annotations

import array
import sys

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from vla_trt_ros.config import load_robot
from vla_trt_ros.nodes.params import Param, declare, on_change
from vla_trt_ros.nodes.publish import IMAGE_QOS, STATE_QOS, time_msg
from vla_trt_ros.nodes.run import run_node

FAULTS = (
    'none',
    'silent',  # the first camera stops
    'freeze',  # it repeats its last stamp
    'backward',  # its stamps jump back by 10 s, once per frame
    'truncated',  # half of the bytes
    'zero_size',
    'unknown_encoding',
    'resize',  # half the height from now on, which is no fault to the policy
    'joint_nan',
    'joint_missing',
    'joint_silent',
)
PARAMS = (
    Param('robot', 'metaworld', 'robot file: cameras, joint names and limits'),
    Param('width', 640, 'pixels'),
    Param('height', 480, 'pixels'),
    Param('rate', 30.0, 'frames per second of each camera, Hz', bounds=(0.1, 240.0)),
    Param('joint_rate', 100.0, 'joint states per second, Hz', bounds=(1.0, 1000.0)),
    Param('encoding', 'rgb8', 'of the images', choices=('rgb8', 'bgr8', 'mono8')),
    Param('frames', 0, 'frames per camera, then silence; 0 = without end'),
    Param('fault', 'none', 'what to break', choices=FAULTS, live=True),
)


class PatternNode(Node):
    """Publishes to the topics that the robot file names."""

    def __init__(self) -> None:
        super().__init__('pattern')
        p = declare(self, PARAMS)
        on_change(self, lambda changed: None, self._apply)
        self._fault, self._frames = p['fault'], p['frames']
        robot = load_robot(p['robot'])
        self._names = list(robot.joint_names)
        self._middle = [(j.lower + j.upper) / 2 for j in robot.joints]
        channels = 1 if p['encoding'] == 'mono8' else 3
        self._pictures = _pictures(p['height'], p['width'], channels)
        self._encoding, self._size = p['encoding'], (p['height'], p['width'], channels)
        self._cameras = [
            self.create_publisher(Image, c.topic, IMAGE_QOS) for c in robot.cameras.values()
        ]
        self._joints = self.create_publisher(JointState, robot.joint_states_topic, STATE_QOS)
        self._count = 0
        self._last_stamp = 0
        self.create_timer(1.0 / p['rate'], self._publish_images)
        self.create_timer(1.0 / p['joint_rate'], self._publish_joints)

    def _apply(self, changed: dict) -> None:
        self._fault = changed.get('fault', self._fault)

    def _publish_images(self) -> None:
        waiting = any(c.get_subscription_count() == 0 for c in self._cameras)
        if self._frames and (waiting or self._count >= self._frames):
            return  # counted frames are only sent to somebody who listens
        now = self.get_clock().now().nanoseconds
        data = self._pictures[self._count % len(self._pictures)]
        for i, camera in enumerate(self._cameras):
            msg = self._image(now, data)
            if i == 0 and not self._break(msg):
                continue
            camera.publish(msg)
        self._count += 1
        if self._count == self._frames:
            self.get_logger().info(f'published {self._count} frames per camera')

    def _image(self, stamp_ns: int, data: array.array) -> Image:
        height, width, channels = self._size
        msg = Image(height=height, width=width, encoding=self._encoding, step=width * channels)
        msg.header.stamp = time_msg(stamp_ns)
        msg.header.frame_id = 'camera_optical_frame'
        msg.data = data
        return msg

    def _break(self, msg: Image) -> bool:
        """Apply the fault; False where nothing is to be sent."""
        if self._fault == 'freeze':
            msg.header.stamp = time_msg(self._last_stamp)
            return self._last_stamp > 0
        stamp = msg.header.stamp
        self._last_stamp = stamp.sec * 10**9 + stamp.nanosec
        if self._fault == 'backward':
            # Falling stamps: rising ones would be a driver that started anew.
            stamp.sec = max(1, stamp.sec - 10 - self._count % 1000)
        elif self._fault == 'truncated':
            msg.data = msg.data[: len(msg.data) // 2]
        elif self._fault == 'zero_size':
            msg.width = 0
        elif self._fault == 'unknown_encoding':
            msg.encoding = 'thermal7'
        elif self._fault == 'resize':
            msg.height //= 2
            msg.data = msg.data[: msg.height * msg.step]
        return self._fault != 'silent'

    def _publish_joints(self) -> None:
        if self._fault == 'joint_silent':
            return
        msg = JointState(name=list(self._names), position=list(self._middle))
        msg.header.stamp = self.get_clock().now().to_msg()
        if self._fault == 'joint_nan':
            msg.position[0] = float('nan')
        elif self._fault == 'joint_missing':
            msg.name, msg.position = msg.name[1:], msg.position[1:]
        self._joints.publish(msg)


def _pictures(height: int, width: int, channels: int) -> list[array.array]:
    """Eight uint8 pictures of a ramp that moves, as message fields."""
    ramp = np.add.outer(np.arange(height), np.arange(width))[..., None]
    scale = np.arange(1, channels + 1)
    pictures = []
    for shift in range(0, 256, 32):
        pixels = ((ramp * scale + shift) % 256).astype(np.uint8)
        pictures.append(array.array('B', pixels.tobytes()))
    return pictures


def main(args: list[str] | None = None) -> int:
    """Entry point of lib/vla_trt_ros/pattern_node."""
    return run_node(PatternNode, args)


if __name__ == '__main__':
    sys.exit(main())
