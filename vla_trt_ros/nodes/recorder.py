"""Topics into a bag, as they are on the wire: subscribed raw, written as they come."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib import import_module

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from vla_trt_ros.bags.writer import BagWriter, qos_text
from vla_trt_ros.errors import ConfigError

_DEPTH = 100
_LOOK_EVERY = 0.25  # seconds between looks at who publishes
_FLUSH_EVERY = 0.5
_TELL_EVERY = 1.0
_TELL_FILE_EVERY = 10.0  # where nobody watches a terminal


class Recorder(Node):
    """Records ``topics`` into ``bag`` from when each has a publisher.

    Reliability and latching follow the publishers, so that every one is heard. BagFull where the
    disk is full: the bag is closed by then. ``destroy_node`` closes the bag.
    """

    def __init__(self, bag: BagWriter, topics: Sequence[str]) -> None:
        super().__init__('recorder')
        self._bag = bag
        self._waiting = {self.resolve_topic_name(topic): topic for topic in topics}
        self._skipped: set[str] = set()
        self._seen: dict[str, int] = {}
        self._told = self._begun = time.monotonic()
        self._told_counts: dict[str, int] = {}
        self.create_timer(_LOOK_EVERY, self._look)
        self.create_timer(_FLUSH_EVERY, self._flush)
        self.create_timer(_TELL_EVERY, self._tell)
        self._look()

    @property
    def silent(self) -> tuple[str, ...]:
        """Topics that gave no message."""
        return (*self._waiting, *(t for t, n in self._seen.items() if not n))

    def destroy_node(self) -> None:
        """Close the bag with the node."""
        super().destroy_node()
        if sys.stderr.isatty():
            sys.stderr.write('\n')
        self._bag.close()

    def _look(self) -> None:
        for name in list(self._waiting):
            publishers = self.get_publishers_info_by_topic(name)
            if not publishers:
                continue
            kind = publishers[0].topic_type
            profiles = [p.qos_profile for p in publishers]
            reliable = all(p.reliability is ReliabilityPolicy.RELIABLE for p in profiles)
            latched = all(p.durability is DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
            try:
                message = _message_class(kind)
                self._bag.add(name, kind, qos=qos_text(reliable=reliable, latched=latched))
            except ConfigError as error:
                if name not in self._skipped:
                    self._skipped.add(name)
                    self.get_logger().warning(f'{name} is not recorded: {error}')
                continue
            del self._waiting[name]
            self._seen[name] = 0
            qos = QoSProfile(
                history=HistoryPolicy.KEEP_LAST,
                depth=_DEPTH,
                reliability=(
                    ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
                ),
                durability=(
                    DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
                ),
            )
            self.create_subscription(message, name, self._writer(name), qos, raw=True)

    def _writer(self, name: str):
        def write(data: bytes) -> None:
            self._bag.write(name, self.get_clock().now().nanoseconds, data)
            self._seen[name] += 1

        return write

    def _flush(self) -> None:
        self._bag.flush()

    def _tell(self) -> None:
        now = time.monotonic()
        span = now - self._told
        if not sys.stderr.isatty() and span < _TELL_FILE_EVERY:
            return
        rates = [
            f'{name} {(n - self._told_counts.get(name, 0)) / span:.1f}'
            for name, n in self._seen.items()
        ]
        self._told, self._told_counts = now, dict(self._seen)
        line = f'{now - self._begun:.0f} s  {self._bag.size / 1e6:.1f} MB  Hz: {"  ".join(rates)}'
        ends = ('\r', '\x1b[K') if sys.stderr.isatty() else ('', '\n')
        sys.stderr.write(f'{ends[0]}{line}{ends[1]}')
        sys.stderr.flush()


def _message_class(kind: str) -> type:
    package, _, name = kind.partition('/msg/')
    try:
        return getattr(import_module(f'{package}.msg'), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(
            f'the Python messages of {kind} are not installed: source the setup.bash of {package}.'
        ) from error
