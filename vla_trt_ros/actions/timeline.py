"""A commanded motion over time, sampled the way joint_trajectory_controller samples it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.datatypes import NS, Float64Array

SHORTEST = 1e-3
"""Seconds: knots nearer than this cannot be told apart once they crossed a process boundary."""


def row_at(start_ns: int, step_ns: int, now_ns: int) -> int:
    """Row under execution at ``now_ns``: row k runs over [start + k * step, start + (k+1) * step).

    Negative before the start; the caller compares with the number of rows.
    """
    return (now_ns - start_ns) // step_ns


def row_due_ns(start_ns: int, step_ns: int, row: int) -> int:
    """When row ``row`` is reached: the end of the time it is executed over."""
    return start_ns + (row + 1) * step_ns


@dataclass(frozen=True, slots=True)
class Timeline:
    """Knots of a motion: position and velocity at given times, cubic Hermite between them.

    ``times`` float64 [N], seconds after ``start_ns``, 0 first, strictly increasing; ``positions``
    and ``velocities`` float64 [N, D], units and order of the robot file. At or before the start it
    is at the first knot; from the end on it rests at the last one. ValueError: no knots, or shapes
    that do not agree.
    """

    start_ns: int
    times: Float64Array
    positions: Float64Array
    velocities: Float64Array

    def __post_init__(self) -> None:
        n = len(self.times)
        if n == 0 or len(self.positions) != n or self.velocities.shape != self.positions.shape:
            raise ValueError('a timeline needs knots: times [N], positions and velocities [N, D].')
        if self.times[0] != 0.0 or np.any(np.diff(self.times) <= 0.0):
            raise ValueError('knot times must start at 0 and increase.')

    @property
    def end_ns(self) -> int:
        """When the last knot is reached."""
        return self.start_ns + round(float(self.times[-1]) * NS)

    def rows_left(self, now_ns: int) -> int:
        """Knots that are still ahead of ``now_ns``."""
        ahead = self.times[1:] > (now_ns - self.start_ns) / NS
        return int(np.count_nonzero(ahead))

    def at(self, now_ns: int) -> tuple[Float64Array, Float64Array]:
        """Position and velocity at ``now_ns``: float64 [D] each."""
        positions, velocities = self.sample(np.array([now_ns], dtype=np.int64))
        return positions[0], velocities[0]

    def sample(self, when_ns: NDArray[np.int64]) -> tuple[Float64Array, Float64Array]:
        """Positions and velocities at the times ``when_ns`` [M]: float64 [M, D] each."""
        t = (when_ns - self.start_ns) / NS
        if len(self.times) == 1:
            still = np.repeat(self.positions, len(t), axis=0)
            return still, np.zeros_like(still)
        k = np.clip(np.searchsorted(self.times, t, side='right') - 1, 0, len(self.times) - 2)
        h = (self.times[k + 1] - self.times[k])[:, None]
        s = np.clip((t - self.times[k])[:, None] / h, 0.0, 1.0)
        p0, p1 = self.positions[k], self.positions[k + 1]
        v0, v1 = self.velocities[k], self.velocities[k + 1]
        # p0 plus a correction, so that a motion at rest is exactly at rest.
        rise = s * s * (3.0 - 2.0 * s)
        p = p0 + rise * (p1 - p0) + h * s * (1.0 - s) * ((1.0 - s) * v0 - s * v1)
        v = 6.0 * s * (1.0 - s) * (p1 - p0) / h
        v += (1.0 - s) * (1.0 - 3.0 * s) * v0 + s * (3.0 * s - 2.0) * v1
        over = (t >= self.times[-1])[:, None]
        return np.where(over, self.positions[-1], p), np.where(over, 0.0, v)

    @staticmethod
    def rest(position: Float64Array, now_ns: int, duration: float) -> Timeline:
        """Stay at ``position`` [D]; ``duration`` s is the time of the one knot that is sent."""
        still = np.repeat(np.asarray(position, np.float64)[None], 2, axis=0)
        return Timeline(now_ns, np.array([0.0, duration]), still, np.zeros_like(still))

    @staticmethod
    def brake(
        position: Float64Array,
        velocity: Float64Array,
        now_ns: int,
        duration: float,
        lower: Float64Array,
        upper: Float64Array,
    ) -> Timeline:
        """Slow evenly from ``velocity`` to rest over ``duration`` s, on a way of half of
        velocity * duration. A joint with less room before a limit stops within that room, so
        sooner. All arrays float64 [D].
        """
        # A joint already outside a limit has no room: braking must not start a motion.
        room = np.where(velocity > 0.0, upper - position, position - lower)
        with np.errstate(divide='ignore', invalid='ignore'):
            stop = np.where(velocity == 0.0, duration, 2.0 * room / np.abs(velocity))
        stop = np.clip(stop, SHORTEST, duration)
        times = np.unique(np.concatenate([[0.0], stop, [duration]]))
        # Uneven knots of evenly braked joints: a cubic between them is each joint's own parabola.
        t = np.minimum(times[:, None], stop)
        positions = position + velocity * t * (1.0 - 0.5 * t / stop)
        return Timeline(now_ns, times, positions, velocity * (1.0 - t / stop))
