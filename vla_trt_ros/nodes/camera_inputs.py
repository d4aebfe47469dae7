"""Camera topics into `LatestFrames`, for a node that has no policy node beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from vla_trt_ros.camera.latest import LatestFrames
from vla_trt_ros.config import CameraConfig
from vla_trt_ros.errors import BadInput, UnknownEncoding
from vla_trt_ros.messages import frame_from_compressed, frame_from_image
from vla_trt_ros.nodes import cv_bridge_fallback
from vla_trt_ros.nodes.publish import IMAGE_QOS


class CameraInputs:
    """Subscribes while it lives. What cannot be used is counted and told."""

    def __init__(self, node: Node, cameras: Mapping[str, CameraConfig]) -> None:
        self.frames = LatestFrames(cameras, max_skew_ms=float('inf'))
        self._node = node
        self._subscriptions = []
        for view, camera in cameras.items():
            kind = CompressedImage if camera.compressed else Image
            callback = self._callback(view, kind)
            self._subscriptions.append(
                node.create_subscription(kind, camera.topic, callback, IMAGE_QOS)
            )

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _callback(self, view: str, kind: type) -> Callable[[object], None]:
        convert = frame_from_compressed if kind is CompressedImage else frame_from_image

        def callback(msg: object) -> None:
            receive_ns = self._node.get_clock().now().nanoseconds
            try:
                frame = convert(msg, receive_ns)
            except UnknownEncoding as error:
                frame = cv_bridge_fallback.frame(msg, receive_ns)
                if frame is None:
                    self._reject(view, error)
                    return
            except BadInput as error:
                self._reject(view, error)
                return
            self.frames.offer(view, frame)

        return callback

    def _reject(self, view: str, error: BadInput) -> None:
        self.frames.reject(view, str(error))
        self._node.get_logger().warning(f'camera {view}: {error}', throttle_duration_sec=5.0)
