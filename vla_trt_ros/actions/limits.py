"""Position, velocity and step limits on a motion, at its knots and between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.actions.layout import check_rows
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import NS, Float64Array


@dataclass(frozen=True, slots=True)
class Limits:
    """What a joint may do; float64 [D] each, units and order of the robot file."""

    names: tuple[str, ...]
    lower: Float64Array
    upper: Float64Array
    speed: Float64Array
    """Unit/s: max_velocity, or max_step per row where that is less."""
    tracking_tolerance: Float64Array

    @staticmethod
    def of(robot: RobotConfig) -> Limits:
        """The limits of a robot file."""
        step = robot.step_ns / NS
        return Limits(
            names=robot.joint_names,
            lower=np.array([j.lower for j in robot.joints]),
            upper=np.array([j.upper for j in robot.joints]),
            speed=np.array([min(j.max_velocity, j.max_step / step) for j in robot.joints]),
            tracking_tolerance=np.array([j.tracking_tolerance for j in robot.joints]),
        )

    def time_to_limit(self, position: Float64Array, velocity: Float64Array) -> float:
        """Longest first interval, s, on which `limit_rows` keeps the position limits of every
        joint; inf where none moves towards one.
        """
        room = np.where(velocity > 0.0, self.upper - position, position - self.lower)
        moving = np.abs(velocity) > 0.0
        times = 3.0 * np.maximum(room[moving], 0.0) / np.abs(velocity[moving])
        return float(times.min(initial=np.inf))


@dataclass(frozen=True, slots=True)
class LimitedRows:
    """Knots that keep the limits: float64 [N, D]; ``clamped`` int64 [D] counts moved elements."""

    positions: Float64Array
    velocities: Float64Array
    clamped: NDArray[np.int64]


def limit_rows(
    rows: Float64Array,
    times: Float64Array,
    position: Float64Array,
    velocity: Float64Array,
    limits: Limits,
) -> LimitedRows:
    """Limit ``rows`` [N, D], due at ``times`` [N] s after a moment at which the robot is commanded
    to be at ``position`` [D] with ``velocity`` [D]; choose the knot velocities.

    Knots not limited are returned bit for bit. Knot velocities are three-point finite differences,
    so that a steady motion stays steady through a seam; the last is zero, because
    joint_trajectory_controller refuses other ends and because it is where the arm stops if no
    chunk follows. Cubic Hermite interpolation between the knots keeps the limits too, where the
    first row is due within `Limits.time_to_limit`. A start outside the position limits is led
    back at limited speed, never further out.
    BadAction: shape, NaN or Inf.
    """
    rows = check_rows(rows, limits.names)
    steps = np.diff(times, prepend=0.0)
    positions, velocities = np.empty_like(rows), np.zeros_like(rows)
    clamped = np.zeros(rows.shape[1], dtype=np.int64)
    speed = limits.speed
    target = np.clip(rows, limits.lower, limits.upper)
    p0, v0 = position, velocity
    # A Hermite piece is a Bezier curve. Its velocity stays between v0, 3 * mean - v0 - v1 and v1,
    # its position between p0, p0 + h * v0 / 3, p1 - h * v1 / 3 and p1: bounding those bounds all.
    for k, h in enumerate(steps):
        low, high = np.minimum(limits.lower, p0), np.maximum(limits.upper, p0)
        ahead = h if k + 1 == len(steps) else steps[k + 1]
        # Farthest p1 from which some v1 keeps the speed here and the position limits after it.
        weight = 1.0 / h + 1.0 / ahead
        p_min = np.maximum(
            p0 + h * (v0 - 2.0 * speed) / 3.0,
            ((v0 - speed) / 3.0 + low / ahead + p0 / h) / weight,
        )
        p_max = np.minimum(
            p0 + h * (v0 + 2.0 * speed) / 3.0,
            ((v0 + speed) / 3.0 + high / ahead + p0 / h) / weight,
        )
        p1 = np.clip(target[k], p_min, p_max)
        clamped += np.abs(p1 - rows[k]) > 1e-9
        if k + 1 == len(steps):
            # Coming to rest here may need a shorter way; the policy asked for nothing wrong.
            reach = h * speed / 3.0
            positions[k] = np.clip(p1, p0 + h * v0 / 3.0 - reach, p0 + h * v0 / 3.0 + reach)
            break
        mean, mean_ahead = (p1 - p0) / h, (target[k + 1] - p1) / ahead
        v_min = np.maximum.reduce(
            [-speed, 3.0 * mean - v0 - speed, -3.0 * (high - p1) / h, -3.0 * (p1 - low) / ahead]
        )
        v_max = np.minimum.reduce(
            [speed, 3.0 * mean - v0 + speed, 3.0 * (p1 - low) / h, 3.0 * (high - p1) / ahead]
        )
        v1 = np.clip((mean * ahead + mean_ahead * h) / (h + ahead), v_min, v_max)
        positions[k], velocities[k] = p1, v1
        p0, v0 = p1, v1
    return LimitedRows(positions, velocities, clamped)
