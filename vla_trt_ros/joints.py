"""The last joint states: how old they are, and where the joints were when a camera exposed."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque

import numpy as np

from vla_trt_ros.datatypes import Counters, JointSample, Reason
from vla_trt_ros.freshness import FUTURE_TOLERANCE_NS, Freshness

_HISTORY = 256
# A clock that jumped back by more than this starts a new history (a simulator was reset).
_RESTART_NS = 1_000_000_000


class JointHistory:
    """One writer (the joint_states callback), any reader. Only rising stamps are kept."""

    def __init__(self, topic: str, max_age_ms: float) -> None:
        self._topic = topic
        self._max_age_ms = max_age_ms
        self._samples: deque[JointSample] = deque(maxlen=_HISTORY)
        self._lock = threading.Lock()
        self._fault = ''
        self._urgent = False
        self.counters = Counters()

    def offer(self, sample: JointSample) -> bool:
        """Keep ``sample``. False, and counted, where its stamp does not rise."""
        with self._lock:
            if self._samples and sample.stamp_ns <= self._samples[-1].stamp_ns:
                if self._samples[-1].stamp_ns - sample.stamp_ns < _RESTART_NS:
                    self.counters.add('state_not_rising')
                    return False
                self.counters.add('state_clock_restarts')
                self._samples.clear()
            self._samples.append(sample)
            self._fault, self._urgent = '', False
            return True

    def reject(self, why: str, *, at_once: bool = True) -> None:
        """Count a sample that could not be used; ``why`` is told until a good one comes.

        ``at_once`` False: told only when the last good sample is too old. For a message that lacks
        joints, which may be another publisher's and then does no harm.
        """
        with self._lock:
            self.counters.add('state_rejected')
            self._fault, self._urgent = why, self._urgent or at_once

    def newest(self) -> JointSample | None:
        """The last sample."""
        with self._lock:
            return self._samples[-1] if self._samples else None

    def freshness(self, now_ns: int) -> Freshness:
        """Whether the newest sample can be used at ``now_ns``, and if not, why."""
        with self._lock:
            newest = self._samples[-1] if self._samples else None
            fault, urgent = self._fault, self._urgent
        stale = newest is None or now_ns - newest.stamp_ns > self._max_age_ms * 1e6
        if fault and (urgent or stale):
            return Freshness(Reason.BAD_STATE, f'{self._topic}: {fault}')
        if newest is None:
            return Freshness(Reason.NO_STATE, f'joint states: nothing yet on {self._topic}.')
        if newest.stamp_ns > now_ns + FUTURE_TOLERANCE_NS:
            ahead = (newest.stamp_ns - now_ns) / 1e6
            return Freshness(
                Reason.CLOCK,
                f'{self._topic}: stamp is {ahead:.0f} ms in the future; synchronise the clocks.',
            )
        if stale:
            age = (now_ns - newest.stamp_ns) / 1e6
            return Freshness(
                Reason.STALE_STATE,
                f'{self._topic}: newest joint states are {age:.0f} ms old '
                f'(max_state_age_ms {self._max_age_ms:.0f}).',
            )
        return Freshness()

    def at(self, stamp_ns: int) -> JointSample | None:
        """Joint states at ``stamp_ns``, linear between the two samples around it.

        Before the oldest or after the newest sample that sample is given as it is, and also where
        the two around it do not name the same joints. None before the first sample.
        """
        with self._lock:
            samples = list(self._samples)
        if not samples:
            return None
        i = bisect_left([s.stamp_ns for s in samples], stamp_ns)
        if i == 0 or i == len(samples):
            return samples[min(i, len(samples) - 1)]
        before, after = samples[i - 1], samples[i]
        if before.names != after.names:
            return after
        w = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
        return JointSample(
            stamp_ns=stamp_ns,
            receive_ns=after.receive_ns,
            names=after.names,
            positions=np.asarray((1 - w) * before.positions + w * after.positions),
            velocities=after.velocities,
        )

    def reset(self) -> None:
        """Forget all samples, keep the counts."""
        with self._lock:
            self._samples.clear()
            self._fault, self._urgent = '', False
