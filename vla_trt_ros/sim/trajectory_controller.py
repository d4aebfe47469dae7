"""The two controllers of ros2_control that the robots use, as pure functions of time.

``TrajectoryController`` does what joint_trajectory_controller does with a topic command, with
``interpolate_from_desired_state`` on and partial goals off; ``PositionController`` is
forward_command_controller. Each refuses what the original refuses, and says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vla_trt_ros.datatypes import NS, Float64Array
from vla_trt_ros.errors import BadAction


class Controller(Protocol):
    """What is asked for a target at each control step."""

    def sample(self, now_ns: int) -> Float64Array:
        """Joint targets, float64 [D], for this moment."""
        ...

    def hold(self, positions: Float64Array) -> None:
        """Forget the command and stay at ``positions``, float64 [D]."""
        ...


@dataclass(frozen=True, slots=True)
class Trajectory:
    """trajectory_msgs/JointTrajectory as arrays, not yet checked.

    ``positions`` (rad or m) and ``velocities`` (per second) are [N, D], columns in the order of
    ``names``; ``times`` is [N], seconds after ``stamp_ns``. A stamp of 0 means on arrival.
    """

    stamp_ns: int
    names: tuple[str, ...]
    times: Float64Array
    positions: Float64Array
    velocities: Float64Array | None = None


class TrajectoryController:
    """Follows the newest trajectory; holds its last point when it is over.

    Between points: cubic Hermite where the trajectory has velocities, straight lines where not.
    Before the first point it moves there from where the running command is, as the original does,
    even when the trajectory is stamped in the future.
    """

    def __init__(self, names: Sequence[str], positions: Float64Array) -> None:
        self.names = tuple(names)
        self.hold(positions)

    def hold(self, positions: Float64Array) -> None:
        """Forget the trajectory and stay at ``positions``, float64 [D]."""
        self._times = np.zeros(1, np.int64)
        self._positions = np.array(positions, dtype=np.float64).reshape(1, len(self.names))
        self._velocities: Float64Array | None = None

    def accept(self, trajectory: Trajectory, now_ns: int) -> None:
        """Replace the running trajectory. BadAction says why not, and the old one goes on."""
        columns = _columns(self.names, trajectory.names)
        positions = _rows('positions', trajectory.positions, len(trajectory.names))[:, columns]
        times = _point_times(trajectory, len(positions), now_ns)
        velocities = None
        if trajectory.velocities is not None:
            velocities = _rows('velocities', trajectory.velocities, len(trajectory.names))
            velocities = velocities[:, columns]
            if len(velocities) != len(positions):
                raise BadAction(
                    f'trajectory has {len(positions)} positions and {len(velocities)} velocities.'
                )
            if np.any(velocities[-1] != 0.0):
                joint = self.names[int(np.flatnonzero(velocities[-1])[0])]
                raise BadAction(
                    f'trajectory ends while {joint} still moves: give the last point velocity 0.'
                )
        if times[0] > now_ns:
            position, velocity = self.state(now_ns)
            times = np.concatenate(([now_ns], times))
            positions = np.vstack((position, positions))
            if velocities is not None:
                velocities = np.vstack((velocity, velocities))
        self._times, self._positions, self._velocities = times, positions, velocities

    def sample(self, now_ns: int) -> Float64Array:
        """Where the joints should be, float64 [D]."""
        return self.state(now_ns)[0]

    def state(self, now_ns: int) -> tuple[Float64Array, Float64Array]:
        """Wanted positions and velocities, float64 [D] each."""
        times, rows = self._times, self._positions
        if now_ns >= times[-1] or now_ns < times[0]:
            row = rows[-1] if now_ns >= times[-1] else rows[0]
            return row.copy(), np.zeros(len(self.names))
        k = int(np.searchsorted(times, now_ns, side='right')) - 1
        span = (times[k + 1] - times[k]) / NS
        s = float(now_ns - times[k]) / float(times[k + 1] - times[k])
        slope = (rows[k + 1] - rows[k]) / span
        if self._velocities is None:
            return rows[k] + s * (rows[k + 1] - rows[k]), slope
        v0, v1 = self._velocities[k], self._velocities[k + 1]
        # Hermite's cubic, grouped by powers of s.
        c2 = span * (3.0 * slope - 2.0 * v0 - v1)
        c3 = span * (v0 + v1 - 2.0 * slope)
        position = rows[k] + s * (span * v0 + s * (c2 + s * c3))
        velocity = v0 + s * (2.0 * c2 + s * 3.0 * c3) / span
        return position, velocity

    def done(self, now_ns: int) -> bool:
        """True when the last point is reached and held."""
        return bool(now_ns >= self._times[-1])


class PositionController:
    """Goes to the newest row of positions at once and holds it."""

    def __init__(self, names: Sequence[str], positions: Float64Array) -> None:
        self.names = tuple(names)
        self.hold(positions)

    def hold(self, positions: Float64Array) -> None:
        """Stay at ``positions``, float64 [D]."""
        self._positions = np.array(positions, dtype=np.float64).reshape(len(self.names))

    def accept(self, positions: Sequence[float] | Float64Array) -> None:
        """Take a row in the order of ``names``; BadAction on a wrong length, NaN or Inf."""
        row = np.asarray(positions, dtype=np.float64)
        if row.shape != (len(self.names),):
            raise BadAction(
                f'command has {row.size} values for {len(self.names)} joints '
                f'({", ".join(self.names)}).'
            )
        if not np.isfinite(row).all():
            raise BadAction(f'command {row.tolist()} holds NaN or Inf.')
        self._positions = row.copy()

    def sample(self, now_ns: int) -> Float64Array:
        """Where the joints should be, float64 [D]; the time does not matter."""
        return self._positions.copy()


def trajectory_from_msg(msg: Any) -> Trajectory:
    """Read trajectory_msgs/JointTrajectory by field access. BadAction where points are ragged.

    Accelerations and efforts are left aside; velocities count when every point has them.
    """
    names = tuple(msg.joint_names)
    with_velocity = [len(p.velocities) > 0 for p in msg.points]
    if any(with_velocity) and not all(with_velocity):
        raise BadAction(
            f'{sum(with_velocity)} of {len(with_velocity)} points have velocities: '
            'give them to all or to none.'
        )
    for k, point in enumerate(msg.points):
        for field in ('positions', 'velocities'):
            values = getattr(point, field)
            if len(values) != len(names) and not (field == 'velocities' and len(values) == 0):
                raise BadAction(f'point {k} has {len(values)} {field} for {len(names)} joints.')
    shape = (len(msg.points), len(names))
    durations = [p.time_from_start for p in msg.points]
    stamp = msg.header.stamp
    return Trajectory(
        stamp_ns=int(stamp.sec) * NS + int(stamp.nanosec),
        names=names,
        times=np.array([d.sec + d.nanosec / NS for d in durations], dtype=np.float64),
        positions=np.array([p.positions for p in msg.points], np.float64).reshape(shape),
        velocities=(
            np.array([p.velocities for p in msg.points], np.float64).reshape(shape)
            if any(with_velocity)
            else None
        ),
    )


def _columns(ours: tuple[str, ...], theirs: tuple[str, ...]) -> list[int]:
    unknown = [n for n in theirs if n not in ours]
    if unknown:
        raise BadAction(f'joint {unknown[0]!r} is unknown; this robot has {", ".join(ours)}.')
    missing = [n for n in ours if n not in theirs]
    if missing:
        raise BadAction(f'joint {missing[0]!r} is missing: a trajectory names every joint.')
    if len(theirs) != len(ours):
        raise BadAction(f'a joint is named twice in {", ".join(theirs)}.')
    return [theirs.index(n) for n in ours]


def _rows(what: str, values: Float64Array, width: int) -> Float64Array:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise BadAction(f'{what} have shape {rows.shape} for {width} joints.')
    if not np.isfinite(rows).all():
        raise BadAction(f'{what} hold NaN or Inf: the trajectory is refused.')
    return rows


def _point_times(trajectory: Trajectory, points: int, now_ns: int) -> np.ndarray[Any, Any]:
    """Absolute times of the points, int64 [N] nanoseconds; BadAction where they make no sense."""
    times = np.asarray(trajectory.times, dtype=np.float64)
    if points == 0:
        raise BadAction('trajectory is empty: it has no points.')
    if times.shape != (points,):
        raise BadAction(f'trajectory has {points} points and {times.size} times.')
    if not np.isfinite(times).all() or times[0] < 0.0:
        raise BadAction(f'time_from_start {times.tolist()} must be finite and not negative.')
    offsets = np.round(times * NS).astype(np.int64)
    if (np.diff(offsets) <= 0).any():
        k = int(np.flatnonzero(np.diff(offsets) <= 0)[0])
        raise BadAction(
            f'time_from_start goes from {times[k]} s to {times[k + 1]} s at point {k + 1}: '
            'times must increase.'
        )
    start = trajectory.stamp_ns or now_ns
    absolute: np.ndarray[Any, Any] = start + offsets
    if trajectory.stamp_ns and absolute[-1] < now_ns:
        late = (now_ns - int(absolute[-1])) / NS
        raise BadAction(f'trajectory ended {late:.3f} s ago: it is not executed.')
    return absolute
