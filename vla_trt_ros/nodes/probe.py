"""Look at a running system from outside for a few seconds: what ``vla-trt doctor --live`` asks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import rclpy
from rclpy.duration import Infinite
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_trt_ros.config import RobotConfig
from vla_trt_ros.messages import stamp_ns
from vla_trt_ros.nodes.publish import COMMAND_QOS, EVENT_QOS, IMAGE_QOS, STATE_QOS
from vla_trt_ros.nodes.run import keep_freed_memory

_NAMES = {
    Image: 'sensor_msgs/msg/Image',
    CompressedImage: 'sensor_msgs/msg/CompressedImage',
    JointState: 'sensor_msgs/msg/JointState',
}
_DISCOVERY = 5.0  # seconds at most; 0.1 to 2 are usual


_WARM_UP = 1.0  # seconds


@dataclass(slots=True)
class TopicFacts:
    """What was seen of one topic that the policy node reads; ages by the sender's stamps."""

    topic: str
    kind: str
    """Message type that is wanted, such as sensor_msgs/msg/Image."""
    publishers: tuple[str, ...] = ()
    other_types: tuple[str, ...] = ()
    """Types that are sent in place of ``kind``."""
    reliable: bool = False
    """A publisher waits for readers that acknowledge."""
    received: int = 0
    lost: int = 0
    """Gaps in the publisher's sequence numbers; means nothing with several publishers."""
    first: float = 0.0
    last: float = 0.0
    newest_age_ms: float = 0.0
    encoding: str = ''
    size: str = ''
    names: set[tuple[str, ...]] = field(default_factory=set)
    """The lists of joints that messages named."""
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


@dataclass(slots=True)
class LinkFacts:
    """Who is at the other end of a topic that is reliable, and whose QoS does not fit ours."""

    topic: str
    others: tuple[str, ...] = ()
    mismatch: tuple[str, ...] = ()
    """A line for each of ``others`` that cannot be heard, or cannot hear."""


@dataclass(slots=True)
class SystemFacts:
    """All that was seen.

    ``topics``: 'camera <view>' of each camera, and 'joint states'. They are read best effort and
    volatile, which every publisher's QoS fits. ``links``: 'estop', 'prompt' and 'controller'.
    """

    topics: dict[str, TopicFacts]
    links: dict[str, LinkFacts]


def probe(robot: RobotConfig, seconds: float, *, namespace: str = '') -> SystemFacts:
    """Subscribe for ``seconds`` as the policy node of ``robot`` in ``namespace`` does."""
    keep_freed_memory()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('vla_trt_doctor', namespace=namespace)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    topics: dict[str, TopicFacts] = {}
    try:
        for view, camera in robot.cameras.items():
            kind = CompressedImage if camera.compressed else Image
            topics[f'camera {view}'] = _watch(node, kind, camera.topic, IMAGE_QOS)
        topics['joint states'] = _watch(node, JointState, robot.joint_states_topic, STATE_QOS)
        found = time.monotonic() + _DISCOVERY
        while time.monotonic() < found and not all(
            node.count_publishers(fact.topic) for fact in topics.values()
        ):
            executor.spin_once(timeout_sec=0.1)
        # The first message of a type is slow to take, and others are lost meanwhile: not counted.
        for length in (_WARM_UP, seconds):
            for fact in topics.values():
                fact.received = fact.lost = fact._sequence = 0
                fact.first = fact.last = 0.0
            end = time.monotonic() + length
            while time.monotonic() < end:
                executor.spin_once(timeout_sec=0.1)
        for fact in topics.values():
            _look_at_publishers(node, fact)
        links = {
            'estop': _talkers(node, 'estop', EVENT_QOS),
            'prompt': _talkers(node, 'policy/prompt', EVENT_QOS),
            'controller': _listeners(node, robot.controller.topic, COMMAND_QOS),
        }
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return SystemFacts(topics, links)


def _watch(node: Node, kind: type, topic: str, qos: QoSProfile) -> TopicFacts:
    fact = TopicFacts(node.resolve_topic_name(topic), _NAMES[kind])

    def callback(msg, info) -> None:
        _count(fact, msg, info, node.get_clock().now().nanoseconds)

    node.create_subscription(kind, topic, callback, qos)
    return fact


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
        fact.names.add(tuple(msg.name))


def _look_at_publishers(node: Node, fact: TopicFacts) -> None:
    found = node.get_publishers_info_by_topic(fact.topic)
    fact.publishers = tuple(sorted(_full_name(p) for p in found))
    types = {p.topic_type for p in found}
    fact.other_types = tuple(sorted(types - {fact.kind}))
    fact.reliable = any(p.qos_profile.reliability is ReliabilityPolicy.RELIABLE for p in found)


def _talkers(node: Node, topic: str, qos: QoSProfile) -> LinkFacts:
    """Publishers, and which of them a subscription of ``qos`` does not hear."""
    name = node.resolve_topic_name(topic)
    found = node.get_publishers_info_by_topic(name)
    return _link(name, [(p, qos_check_compatible(p.qos_profile, qos)) for p in found])


def _listeners(node: Node, topic: str, qos: QoSProfile) -> LinkFacts:
    """Subscriptions, and which of them do not hear a publisher of ``qos``."""
    name = node.resolve_topic_name(topic)
    found = node.get_subscriptions_info_by_topic(name)
    # Spelt out as discovery tells it: an unset deadline looks laxer than an infinite one.
    ours = QoSProfile(
        depth=qos.depth,
        reliability=qos.reliability,
        durability=qos.durability,
        deadline=Infinite,
        liveliness_lease_duration=Infinite,
    )
    return _link(name, [(s, qos_check_compatible(ours, s.qos_profile)) for s in found])


def _link(topic: str, checked: list) -> LinkFacts:
    fact = LinkFacts(topic, tuple(sorted(_full_name(other) for other, _ in checked)))
    fact.mismatch = tuple(
        f'{_full_name(other)}: {why.removeprefix("ERROR: ").rstrip("; ")}'
        for other, (level, why) in checked
        if level == QoSCompatibility.ERROR
    )
    return fact


def _full_name(endpoint) -> str:
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'
