"""Look at a running system from outside for a few seconds: what ``vla-trt doctor --live`` asks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_trt_ros.config import RobotConfig
from vla_trt_ros.messages import stamp_ns
from vla_trt_ros.nodes.publish import IMAGE_QOS, STATE_QOS
from vla_trt_ros.nodes.run import keep_freed_memory


@dataclass(slots=True)
class TopicFacts:
    """What was seen of one topic; ages in milliseconds, by the sender's stamps."""

    topic: str
    publishers: int = 0
    qos_mismatch: str = ''
    received: int = 0
    lost: int = 0
    """Gaps in the publisher's sequence numbers, where the middleware numbers them."""
    first: float = 0.0
    last: float = 0.0
    newest_age_ms: float = 0.0
    encoding: str = ''
    size: str = ''
    names: tuple[str, ...] = ()
    _sequence: int = field(default=0, repr=False)

    @property
    def arrival_ratio(self) -> float:
        """Received over sent, between the first and the last one received."""
        sent = self.received + self.lost
        return self.received / sent if sent else 0.0

    @property
    def rate_hz(self) -> float:
        """Messages received per second."""
        span = self.last - self.first
        return (self.received - 1) / span if span > 0 else 0.0


def probe(robot: RobotConfig, seconds: float) -> dict[str, TopicFacts]:
    """Subscribe as the policy node does and count for ``seconds``.

    Keys: 'camera <view>' of each camera of ``robot``, and 'joint states'.
    """
    keep_freed_memory()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('vla_trt_doctor')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    facts: dict[str, TopicFacts] = {}
    wanted: list[tuple[TopicFacts, QoSProfile]] = []

    def watch(key: str, kind: type, topic: str, qos: QoSProfile) -> None:
        fact = facts[key] = TopicFacts(topic)
        wanted.append((fact, qos))

        def callback(msg, info) -> None:
            _count(fact, msg, info, node.get_clock().now().nanoseconds)

        node.create_subscription(kind, topic, callback, qos)

    try:
        for view, camera in robot.cameras.items():
            kind = CompressedImage if camera.compressed else Image
            watch(f'camera {view}', kind, camera.topic, IMAGE_QOS)
        watch('joint states', JointState, robot.joint_states_topic, STATE_QOS)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        for fact, qos in wanted:
            _look_at_publishers(node, fact, qos)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return facts


def _count(fact: TopicFacts, msg, info: dict, now_ns: int) -> None:
    now = time.monotonic()
    fact.first = fact.first or now
    fact.last = now
    fact.received += 1
    fact.newest_age_ms = (now_ns - stamp_ns(msg.header.stamp)) / 1e6
    sequence = info.get('publication_sequence_number') or 0
    if fact._sequence and 1 < sequence - fact._sequence < 1000:
        fact.lost += sequence - fact._sequence - 1
    fact._sequence = sequence
    if isinstance(msg, Image):
        fact.encoding, fact.size = msg.encoding, f'{msg.width}x{msg.height}'
    elif isinstance(msg, CompressedImage):
        fact.encoding = msg.format
    else:
        fact.names = tuple(msg.name)


def _look_at_publishers(node, fact: TopicFacts, qos: QoSProfile) -> None:
    publishers = node.get_publishers_info_by_topic(node.resolve_topic_name(fact.topic))
    fact.publishers = len(publishers)
    for publisher in publishers:
        level, why = qos_check_compatible(publisher.qos_profile, qos)
        if level == QoSCompatibility.ERROR:
            fact.qos_mismatch = f'{publisher.node_name}: {why}'
