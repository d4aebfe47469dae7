"""The newest frame of each camera, how old it is, and how far apart the cameras are.

One writer (the message callbacks), one reader (the inference thread). Newest wins: a frame that is
replaced before it was read is counted as dropped, and nothing queues.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from vla_trt_ros.config import CameraConfig
from vla_trt_ros.datatypes import CameraFrame, Reason
from vla_trt_ros.freshness import FUTURE_TOLERANCE_NS, Freshness

# A driver that restarts may start its stamps anew: this many rising stamps are a new beginning.
RESTART_AFTER = 5


@dataclass(frozen=True, slots=True)
class CameraStats:
    """Counts since the last reset; ``rejected`` = repeated + backward + malformed."""

    received: int = 0
    dropped: int = 0
    repeated: int = 0
    backward: int = 0
    malformed: int = 0

    @property
    def rejected(self) -> int:
        """Frames that never reached the slot."""
        return self.repeated + self.backward + self.malformed


class _Slot:
    __slots__ = ('backward_run', 'fault', 'frame', 'last_backward', 'stats', 'taken', 'used')

    def __init__(self) -> None:
        self.frame: CameraFrame | None = None
        self.used = False
        self.taken: CameraFrame | None = None
        self.stats = CameraStats()
        self.fault = ''
        self.backward_run = 0
        self.last_backward = 0


class LatestFrames:
    """One slot per camera.

    ``cameras`` maps the view name to its budgets; ``max_skew_ms`` bounds the distance between the
    oldest and newest exposure of one tick.
    """

    def __init__(self, cameras: Mapping[str, CameraConfig], max_skew_ms: float) -> None:
        self._cameras = dict(cameras)
        self._max_skew_ns = max_skew_ms * 1e6
        self._slots = {name: _Slot() for name in cameras}
        self._changed = threading.Condition()
        self._ticking, self._ticks = False, 0

    def offer(self, camera: str, frame: CameraFrame) -> bool:
        """Put ``frame`` into its slot. False for a repeated or backward stamp, which is counted.

        A repeated stamp is a frozen camera, not a new frame: the slot keeps its age.
        """
        with self._changed:
            slot = self._slots[camera]
            stats, old = slot.stats, slot.frame
            if old is not None and frame.stamp_ns == old.stamp_ns:
                slot.stats = replace(stats, repeated=stats.repeated + 1)
                return False
            if (
                old is not None
                and frame.stamp_ns < old.stamp_ns
                and not self._restarted(slot, frame)
            ):
                slot.stats = replace(stats, backward=stats.backward + 1)
                return False
            unread = old is not None and not slot.used
            slot.stats = replace(
                stats, received=stats.received + 1, dropped=stats.dropped + int(unread)
            )
            slot.frame, slot.used, slot.fault = frame, False, ''
            slot.backward_run = 0
            self._changed.notify_all()
            return True

    def reject(self, camera: str, why: str) -> None:
        """Count a malformed message; ``why`` is what `freshness` says until a good frame comes."""
        with self._changed:
            slot = self._slots[camera]
            slot.stats = replace(slot.stats, malformed=slot.stats.malformed + 1)
            slot.fault = why

    def wait_new(self, timeout: float) -> bool:
        """Wait until every camera has a frame that no tick has used, or ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(self._all_new, timeout)

    def wake(self) -> None:
        """Let a waiting reader look again (it is being stopped)."""
        with self._changed:
            self._changed.notify_all()

    def take(self) -> dict[str, CameraFrame]:
        """Newest frame of each camera that has one, marked as used."""
        with self._changed:
            self._ticking = True
            for slot in self._slots.values():
                slot.used = slot.frame is not None
                slot.taken = slot.frame
            return {name: s.frame for name, s in self._slots.items() if s.frame is not None}

    def ticked(self) -> None:
        """The tick that took frames is over: whoever looks beside it may have the processor."""
        with self._changed:
            self._ticking = False
            self._ticks += 1
            self._changed.notify_all()

    def wait_between(self, timeout: float) -> bool:
        """Wait until no tick is under way, or the one that is has ended, or ``timeout`` seconds
        (False).
        """
        with self._changed:
            ticks = self._ticks
            return self._changed.wait_for(
                lambda: not self._ticking or self._ticks != ticks, timeout
            )

    def freshness(self, now_ns: int) -> Freshness:
        """Judge the slots at ``now_ns``: presence, faults, age, clock and skew, in this order."""
        with self._changed:
            stamps = []
            for name, slot in self._slots.items():
                found = self._judge(name, slot, now_ns)
                if not found.ok:
                    return found
                assert slot.frame is not None
                stamps.append((slot.frame.stamp_ns, name))
        (oldest, late), (newest, _) = min(stamps), max(stamps)
        if newest - oldest > self._max_skew_ns:
            return Freshness(
                Reason.CAMERA_SKEW,
                f'camera {late} is {(newest - oldest) / 1e6:.0f} ms behind the others '
                f'(max_camera_skew_ms {self._max_skew_ns / 1e6:.0f}).',
            )
        return Freshness()

    def stats(self) -> dict[str, CameraStats]:
        """Counts of each camera."""
        with self._changed:
            return {name: slot.stats for name, slot in self._slots.items()}

    def newest(self, camera: str) -> CameraFrame | None:
        """What is in a slot, without using it up."""
        with self._changed:
            return self._slots[camera].frame

    def beside(self, camera: str) -> CameraFrame | None:
        """The frame for those who look beside the tick: the one that it took last, so that both
        speak of the same pixels. The newest where no tick took one for max_age_ms.
        """
        with self._changed:
            slot = self._slots[camera]
            newest, taken = slot.frame, slot.taken
        if newest is None or taken is None:
            return newest
        behind_ms = (newest.stamp_ns - taken.stamp_ns) / 1e6
        return taken if 0 <= behind_ms <= self._cameras[camera].max_age_ms else newest

    def reset(self) -> None:
        """Empty slots, zero counts: a new activation starts with new frames."""
        with self._changed:
            self._slots = {name: _Slot() for name in self._slots}

    def _all_new(self) -> bool:
        return all(s.frame is not None and not s.used for s in self._slots.values())

    def _restarted(self, slot: _Slot, frame: CameraFrame) -> bool:
        rising = frame.stamp_ns > slot.last_backward
        slot.backward_run = slot.backward_run + 1 if rising else 1
        slot.last_backward = frame.stamp_ns
        return slot.backward_run >= RESTART_AFTER

    def _judge(self, name: str, slot: _Slot, now_ns: int) -> Freshness:
        budget = self._cameras[name].max_age_ms
        topic = self._cameras[name].topic
        if slot.frame is None:
            if slot.fault:
                return Freshness(Reason.BAD_IMAGE, f'camera {name} ({topic}): {slot.fault}')
            return Freshness(Reason.NO_IMAGE, f'camera {name}: nothing yet on {topic}.')
        if slot.frame.stamp_ns > now_ns + FUTURE_TOLERANCE_NS:
            ahead = (slot.frame.stamp_ns - now_ns) / 1e6
            return Freshness(
                Reason.CLOCK,
                f'camera {name} ({topic}): stamp is {ahead:.0f} ms in the future; '
                f'synchronise the clocks.',
            )
        age = (now_ns - slot.frame.stamp_ns) / 1e6
        if age > budget:
            if slot.fault:
                return Freshness(Reason.BAD_IMAGE, f'camera {name} ({topic}): {slot.fault}')
            return Freshness(
                Reason.STALE_IMAGE,
                f'camera {name} ({topic}): newest frame is {age:.0f} ms old '
                f'(max_age_ms {budget:.0f}).',
            )
        return Freshness()
