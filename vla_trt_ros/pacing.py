"""How often the policy is asked at most: the one rule of the node and of a replay in real time."""

from __future__ import annotations


class Pace:
    """Keeps ticks to ``max_rate`` per second, Hz, from ``now`` on; times are seconds of any clock.

    One tick may be saved up, so that cameras at max_rate with jitter lose no pair.
    """

    def __init__(self, max_rate: float, now: float) -> None:
        self._period = 1.0 / max_rate
        self._due = now

    def after_tick(self, now: float) -> float:
        """A tick ended at ``now``: the seconds until the next may begin; 0 or less: at once."""
        self._due = max(self._due, now - self._period) + self._period
        return self._due - self._period - now
