"""Two clocks of a bag: when a message was recorded, and the stamp that its sender gave it."""

from __future__ import annotations

from dataclasses import dataclass, field

from vla_trt_ros.datatypes import NS

OTHER_CLOCK_NS = 10 * NS
"""Stamps farther from the time of recording are of another clock: simulated, or set wrong."""
GAP_NS = NS
"""A topic that is silent for longer is told."""


@dataclass(slots=True)
class TopicClock:
    """What the stamps of one topic did."""

    messages: int = 0
    backward: int = 0
    """Stamps that lie before the one of the message before."""
    gaps: int = 0
    """Silences of more than a second."""
    longest_gap_ns: int = 0
    first_ns: int = 0
    last_ns: int = 0

    @property
    def rate_hz(self) -> float:
        """Messages per second of their stamps, silences and all."""
        span = self.last_ns - self.first_ns
        return (self.messages - 1) * NS / span if span > 0 else 0.0

    def see(self, stamp_ns: int) -> None:
        """The next message of the topic."""
        if self.messages:
            step = stamp_ns - self.last_ns
            self.backward += step < 0
            self.gaps += step > GAP_NS
            self.longest_gap_ns = max(self.longest_gap_ns, step)
        else:
            self.first_ns = stamp_ns
        self.last_ns = stamp_ns
        self.messages += 1


@dataclass(slots=True)
class BagClock:
    """Times of a bag on one clock, that of the stamps, which is the robot's.

    Log times are kept where they are near the stamps: they say when a message arrived. Where the
    stamps are of another clock, what arrived at all is only known from them.
    """

    topics: dict[str, TopicClock] = field(default_factory=dict)
    elsewhere: int = 0
    """Messages whose stamp is of another clock than the recording."""
    log_backward: int = 0
    """Messages that were recorded before the one in front of them."""
    _offset_ns: int = 0
    _last_log_ns: int = 0

    def place(self, topic: str, log_ns: int, stamp_ns: int = 0) -> int:
        """When a message arrived, on the clock of the stamps; ``stamp_ns`` 0: it has none."""
        self.log_backward += log_ns < self._last_log_ns
        self._last_log_ns = log_ns
        if stamp_ns > 0:
            far = abs(stamp_ns - log_ns) > OTHER_CLOCK_NS
            self.elsewhere += far
            self._offset_ns = stamp_ns - log_ns if far else 0
        time_ns = log_ns + self._offset_ns
        self.topics.setdefault(topic, TopicClock()).see(stamp_ns or time_ns)
        return time_ns
