"""Joining a fresh chunk onto the motion that runs: fade in, cross-fade, limit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.actions.limits import Limits, limit_rows
from vla_trt_ros.actions.timeline import SHORTEST, Timeline, row_at, row_due_ns
from vla_trt_ros.datatypes import NS, Float64Array


@dataclass(frozen=True, slots=True)
class FadeIn:
    """A start: commands grow from ``measured`` [D] to the policy's over ``duration`` s."""

    measured: Float64Array
    start_ns: int
    duration: float

    def over(self, now_ns: int) -> bool:
        """True once the policy has full weight."""
        return now_ns - self.start_ns >= self.duration * NS


@dataclass(frozen=True, slots=True)
class Plan:
    """A joined, limited motion and how many elements of each joint were clamped (int64 [D])."""

    timeline: Timeline
    clamped: NDArray[np.int64]


def ramp(elapsed_ns: NDArray[np.int64], duration: float) -> Float64Array:
    """Weight 0 to 1 over ``duration`` seconds, with no slope at either end; a step if 0."""
    if duration <= 0.0:
        return (elapsed_ns >= 0).astype(np.float64)
    s = np.clip(elapsed_ns / (duration * NS), 0.0, 1.0)
    ramped: Float64Array = s * s * (3.0 - 2.0 * s)
    return ramped


def join(
    running: Timeline,
    rows: Float64Array,
    start_ns: int,
    step_ns: int,
    now_ns: int,
    limits: Limits,
    *,
    valid_from: int = 0,
    until_ns: int | None = None,
    blend_time: float = 0.0,
    fade_in: FadeIn | None = None,
) -> Plan | None:
    """The motion from ``now_ns`` on: ``rows`` [H, D] of a fresh chunk faded over ``running``.

    Row k is reached at start + (k + 1) * step. Rows already reached are left out, so are rows
    reached after ``until_ns``. Before row ``valid_from``, and before the chunk starts, ``running``
    goes on. ``blend_time`` s: 0 replaces at once. None when no row is left to execute.
    """
    first = row_at(start_ns, step_ns, now_ns + round(SHORTEST * NS))
    last = len(rows) - 1
    if until_ns is not None:
        last = min(last, row_at(start_ns, step_ns, until_ns) - 1)
    begin = max(valid_from, 0)
    if last < max(first, begin):
        return None
    k = np.arange(first, last + 1)
    due_ns = np.array([row_due_ns(start_ns, step_ns, int(i)) for i in k], dtype=np.int64)
    fresh = rows[np.clip(k, 0, last)]
    if fade_in is not None:
        weight = ramp(due_ns - fade_in.start_ns, fade_in.duration)[:, None]
        fresh = fade_in.measured + weight * (fresh - fade_in.measured)
    begin_ns = max(now_ns, start_ns + begin * step_ns)
    weight = ramp(due_ns - begin_ns, blend_time)[:, None]
    weight[k < begin] = 0.0
    old, _ = running.sample(due_ns)
    joined = np.where(weight == 1.0, fresh, old + weight * (fresh - old))
    position, velocity = running.at(now_ns)
    times = (due_ns - now_ns) / NS
    soon = limits.time_to_limit(position, velocity)
    if soon < times[0] - SHORTEST:
        # On the way to a limit: the first row is too late a knot to stay inside it.
        soon = max(soon, SHORTEST)
        between = position + soon / times[0] * (joined[0] - position)
        times, joined = np.insert(times, 0, soon), np.insert(joined, 0, between, axis=0)
    limited = limit_rows(joined, times, position, velocity, limits)
    timeline = Timeline(
        now_ns,
        np.concatenate([[0.0], times]),
        np.concatenate([position[None], limited.positions]),
        np.concatenate([velocity[None], limited.velocities]),
    )
    return Plan(timeline, limited.clamped)
