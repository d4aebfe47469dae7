"""The policy node's subscriptions: camera images and joint states into a `Pipeline`'s slots.

A callback only fills a slot; what cannot be used is counted and told, and nothing is raised on.
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_trt_ros.datatypes import Counters
from vla_trt_ros.errors import BadInput, UnknownEncoding
from vla_trt_ros.messages import frame_from_compressed, frame_from_image, joints_from_msg
from vla_trt_ros.nodes import cv_bridge_fallback
from vla_trt_ros.nodes.publish import IMAGE_QOS, STATE_QOS
from vla_trt_ros.pipeline import Pipeline

_LARGEST_GAP = 1000  # more lost messages than this, or fewer than none, is another publisher


class PolicyInputs:
    """Subscribes while it lives; offers to ``pipeline`` only while ``listening`` is True."""

    def __init__(self, node: Node, pipeline: Pipeline, counters: Counters) -> None:
        self.listening = False
        self._node = node
        self._pipeline = pipeline
        self._counters = counters
        self._sequence: dict[str, int] = {}
        robot = pipeline.robot
        subscribe = node.create_subscription
        self._subscriptions = [
            subscribe(JointState, robot.joint_states_topic, self._on_joints, STATE_QOS)
        ]
        for view in pipeline.policy.views:
            camera = robot.cameras[view]
            kind = CompressedImage if camera.compressed else Image
            self._subscriptions.append(
                subscribe(kind, camera.topic, self._image_callback(view, kind), IMAGE_QOS)
            )

    def close(self) -> None:
        """Unsubscribe."""
        self.listening = False
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _image_callback(self, view: str, kind: type) -> Callable:
        convert = frame_from_compressed if kind is CompressedImage else frame_from_image

        def callback(msg, info) -> None:
            if not self.listening:
                return
            self._count_lost(view, info)
            receive_ns = self._now_ns()
            try:
                frame = convert(msg, receive_ns)
            except UnknownEncoding as error:
                frame = cv_bridge_fallback.frame(msg, receive_ns)
                if frame is None:
                    self._reject_image(view, error)
                    return
            except BadInput as error:
                self._reject_image(view, error)
                return
            self._pipeline.offer_image(view, frame)

        return callback

    def _reject_image(self, view: str, error: BadInput) -> None:
        self._pipeline.frames.reject(view, str(error))
        self._node.get_logger().warning(f'camera {view}: {error}', throttle_duration_sec=5.0)

    def _count_lost(self, view: str, info: dict) -> None:
        sequence = info.get('publication_sequence_number') or 0
        gap = sequence - self._sequence.get(view, sequence) - 1
        if 0 < gap < _LARGEST_GAP:
            self._counters.add(f'{view}_lost', gap)
        self._sequence[view] = sequence

    def _on_joints(self, msg: JointState) -> None:
        if not self.listening:
            return
        try:
            self._pipeline.offer_joints(joints_from_msg(msg, self._now_ns()))
        except BadInput as error:
            self._pipeline.joints.reject(str(error))

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds
