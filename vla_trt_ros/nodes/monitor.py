"""Watch a running system: latest status of both nodes, timing of every chunk, camera pictures.

Used by ``vla-trt demo`` and the benchmarks. Runs in its own thread, in the process that asks.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Bool

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.errors import BadInput, ConfigError
from vla_trt_ros.messages import frame_from_image, stamp_ns
from vla_trt_ros.msg import (
    ActionChunk,
    PerceptionTiming,
    PolicyInfo,
    PolicyStatus,
    PolicyTiming,
)
from vla_trt_ros.nodes.publish import (
    COMMAND_QOS,
    EVENT_QOS,
    IMAGE_QOS,
    LATCHED_QOS,
    TELEMETRY_QOS,
)
from vla_trt_ros.nodes.run import keep_freed_memory
from vla_trt_ros.viz.boxes import Box

_WINDOW = 2.0  # seconds
_BOXES_LIVE = 1.0  # seconds
_PAST = 20  # pictures of a camera with detections: most of a second


class Monitor:
    """Open it in a ``with``; every attribute is what was heard last.

    ``images`` maps a view to a topic whose newest picture is kept (empty: none is received);
    ``detections`` names the cameras whose boxes are.
    """

    def __init__(
        self,
        namespace: str = '',
        images: dict[str, str] | None = None,
        detections: Sequence[str] = (),
    ) -> None:
        self._namespace = namespace
        self._images = images or {}
        self._cameras = tuple(detections)
        self._boxes: dict[str, tuple[float, int, list[Box]]] = {}
        self._past: dict[str, deque[tuple[int, Uint8Array]]] = {}
        self.looks: list[PerceptionTiming] = []
        """All since the start."""
        self._lock = threading.Lock()
        self._arrivals: deque[float] = deque()
        self.status: dict[str, PolicyStatus] = {}
        self.info: PolicyInfo | None = None
        self.timings: list[tuple[float, PolicyTiming]] = []
        """(monotonic seconds of arrival, message), all since the start."""
        self.pictures: dict[str, Uint8Array] = {}
        self.chunk: ActionChunk | None = None
        self.chunks: Counter[int] = Counter()
        """Chunks heard, by the hash of the prompt they were made for."""
        self.success: bool | None = None
        """What the simulator said last; None: nothing yet."""
        self.solved_at: float | None = None
        """Monotonic seconds at which `success` became true."""

    def __enter__(self) -> Monitor:
        keep_freed_memory()
        # No arguments: name:=value of a command line are ours, and none of ROS's remappings.
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        node = self._node = rclpy.create_node('monitor', namespace=self._namespace)
        for name in ('policy', 'command'):
            callback = self._keep_status(name)
            node.create_subscription(PolicyStatus, f'{name}/status', callback, LATCHED_QOS)
        node.create_subscription(PolicyInfo, 'policy/info', self._keep_info, LATCHED_QOS)
        node.create_subscription(PolicyTiming, 'policy/timing', self._on_timing, TELEMETRY_QOS)
        node.create_subscription(ActionChunk, 'action_chunk', self._on_chunk, COMMAND_QOS)
        node.create_subscription(Bool, 'sim/success', self._on_success, LATCHED_QOS)
        for view, topic in self._images.items():
            node.create_subscription(Image, topic, self._keep_picture(view), IMAGE_QOS)
        if self._cameras:
            self._hear_detections(node)
        self._set_parameters = self.client(SetParameters, 'policy/set_parameters')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._executor.spin, name='monitor')
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        rclpy.try_shutdown()

    def client(self, kind: type, name: str) -> Client:
        """A client of service ``name`` in the namespace that is watched."""
        return self._node.create_client(kind, name)

    def now_ns(self) -> int:
        """The ROS clock."""
        return self._node.get_clock().now().nanoseconds

    def boxes(self, view: str) -> list[Box]:
        """What the perception node saw last in ``view``, ready to draw; empty after a second."""
        arrived, _, boxes = self._boxes.get(view, (0.0, 0, []))
        return boxes if time.monotonic() - arrived < _BOXES_LIVE else []

    def looked_at(self, view: str) -> Uint8Array | None:
        """The picture that `boxes` were found in, uint8 [H, W, 3] RGB; None where it is gone."""
        stamp = self._boxes.get(view, (0.0, 0, []))[1]
        past = tuple(self._past.get(view, ()))
        return next((picture for taken, picture in past if taken == stamp), None)

    def _hear_detections(self, node: Node) -> None:
        from vision_msgs.msg import Detection2DArray  # only with detectors

        for view in self._cameras:
            topic = f'perception/detections/{view}'
            callback = self._keep_boxes(view)
            node.create_subscription(Detection2DArray, topic, callback, EVENT_QOS)
        node.create_subscription(
            PerceptionTiming, 'perception/timing', self._keep_look, TELEMETRY_QOS
        )

    def _keep_look(self, msg: PerceptionTiming) -> None:
        self.looks.append(msg)

    def _keep_boxes(self, view: str) -> Callable[[Any], None]:
        def callback(msg: Any) -> None:
            boxes = [_box(d) for d in reversed(msg.detections)]
            self._boxes[view] = time.monotonic(), stamp_ns(msg.header.stamp), boxes

        return callback

    @property
    def rate_hz(self) -> float:
        """Chunks heard per second over the last two seconds."""
        since = time.monotonic() - _WINDOW
        with self._lock:
            while self._arrivals and self._arrivals[0] < since:
                self._arrivals.popleft()
            return len(self._arrivals) / _WINDOW

    def recent(self, field: str, seconds: float = 5.0) -> np.ndarray:
        """A PolicyTiming field over the last ``seconds``; of a list field the largest entry."""
        since = time.monotonic() - seconds
        values = []
        for arrived, timing in reversed(self.timings):
            if arrived < since:
                break
            value = getattr(timing, field)
            values.append(float(value) if np.isscalar(value) else float(max(value, default=0)))
        return np.array(values)

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Poll ``condition`` until it holds (True) or ``timeout`` seconds are over (False)."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.02)
        return condition()

    def set_num_steps(self, num_steps: int) -> None:
        """Change the policy node's parameter; ConfigError in its own words where it refuses."""
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=num_steps)
        request = SetParameters.Request(parameters=[Parameter(name='num_steps', value=value)])
        future = self._set_parameters.call_async(request)
        if not self.wait_for(future.done, 5.0):
            raise ConfigError('the policy node did not answer within 5 s.')
        result = future.result().results[0]
        if not result.successful:
            raise ConfigError(result.reason)

    def _keep_status(self, name: str) -> Callable[[PolicyStatus], None]:
        def callback(msg: PolicyStatus) -> None:
            self.status[name] = msg

        return callback

    def _keep_info(self, msg: PolicyInfo) -> None:
        self.info = msg

    def _on_timing(self, msg: PolicyTiming) -> None:
        now = time.monotonic()
        with self._lock:
            self._arrivals.append(now)
        self.timings.append((now, msg))

    def _on_chunk(self, msg: ActionChunk) -> None:
        self.chunks[msg.prompt_hash] += 1
        self.chunk = msg

    def _on_success(self, msg: Bool) -> None:
        self.solved_at = time.monotonic() if msg.data else None
        self.success = msg.data

    def _keep_picture(self, view: str) -> Callable[[Image], None]:
        def callback(msg: Image) -> None:
            try:
                picture = to_rgb(frame_from_image(msg, 0))
            except BadInput:
                self.pictures.pop(view, None)
                return
            self.pictures[view] = picture
            if view in self._cameras:
                past = self._past.setdefault(view, deque(maxlen=_PAST))
                past.append((stamp_ns(msg.header.stamp), picture))

        return callback


def _box(detection: Any) -> Box:
    """A vision_msgs/Detection2D as it is drawn: label and score, then what classifiers say."""
    first, *others = (result.hypothesis for result in detection.results)
    centre, box = detection.bbox.center.position, detection.bbox
    left, upper = centre.x - box.size_x / 2, centre.y - box.size_y / 2
    text = ' '.join([f'{first.class_id} {first.score:.2f}', *(h.class_id for h in others)])
    return Box(left, upper, left + box.size_x, upper + box.size_y, text, first.class_id)
