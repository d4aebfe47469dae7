"""Chunks against what was done: one row of numbers a chunk, as soon as it can be known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.actions.limits import Limits
from vla_trt_ros.actions.timeline import row_at
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import NS, ActionChunk, ChunkFlag, Float64Array
from vla_trt_ros.replay.columns import grippers, horizon_names
from vla_trt_ros.replay.drive import Tick
from vla_trt_ros.replay.kinematics import Chain
from vla_trt_ros.replay.recorded import RecordedActions

BLOCK = 5.0
"""Seconds of recording that count as one draw where frames are compared: neighbours are alike."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A tick, its numbers by column, and what was done in its rows' time.

    ``recorded`` float64 [H, D], NaN where the recording does not say.
    """

    tick: Tick
    values: dict[str, float]
    recorded: Float64Array


class Judge:
    """Takes ticks in their order and gives them back judged, later: a chunk's rows must be over,
    and the chunk that follows it known. ``begin_ns`` is the start of the recording.
    """

    def __init__(
        self,
        robot: RobotConfig,
        horizon: int,
        recorded: RecordedActions,
        begin_ns: int,
        tip: Chain | None = None,
    ) -> None:
        self._robot = robot
        self._recorded = recorded
        self._begin_ns = begin_ns
        self._tip = tip
        self._spans = horizon_names(horizon)
        self._grippers = list(grippers(robot))
        self._middle = np.array([(j.lower + j.upper) / 2 for j in robot.joints])
        # Half open is neither open nor closed: as near as this agrees too.
        self._near = np.array([0.1 * (j.upper - j.lower) for j in robot.joints])
        self._step_limit = Limits.of(robot).speed * robot.step_ns / NS + 1e-6
        self._waiting: deque[Tick] = deque()
        self._before: Tick | None = None
        self._done: deque[Float64Array] = deque(maxlen=3)
        self._did: deque[Float64Array] = deque(maxlen=3)
        self._grid_ns = 0
        self._run = 0
        self._run_ns = 0

    def add(self, tick: Tick) -> None:
        """One more tick."""
        self._waiting.append(tick)

    def ready(self, *, end: bool = False) -> Iterator[Judged]:
        """The ticks that can be judged by now; all that wait at the ``end`` of the recording."""
        while self._waiting:
            tick = self._waiting[0]
            over_ns = tick.result.chunk.end_ns + self._robot.step_ns
            if not end and (self._recorded.known_ns < over_ns or len(self._waiting) < 2):
                return
            self._waiting.popleft()
            after = self._waiting[0] if self._waiting else None
            yield self._judge(tick, after)
            self._before = tick
            oldest = self._waiting[0].result.chunk.start_ns if self._waiting else over_ns
            self._recorded.forget(min(oldest, tick.result.chunk.end_ns))

    def _judge(self, tick: Tick, after: Tick | None) -> Judged:
        chunk, timing = tick.result.chunk, tick.result.timing
        recorded = self._recorded.rows(chunk.start_ns, chunk.step_ns, chunk.horizon)
        joined = self._joined(tick)
        if not joined:
            self._run += 1
            self._run_ns = chunk.start_ns
            self._done.clear()
            self._did.clear()
        seconds = (chunk.start_ns - self._begin_ns) / NS
        values = {
            'index': tick.index,
            't': seconds,
            'start_ns': chunk.start_ns,
            # Runs are told apart by thousands: an hour is 720 blocks of 5 s.
            'block': 1000 * self._run + (chunk.start_ns - self._run_ns) / NS // BLOCK,
            'clamp_rate': chunk.clamped / chunk.actions.size,
            'inference_ms': timing.inference_ms,
            'latency_ms': (tick.ready_ns - chunk.start_ns) / 1e6,
            'image_age_ms': max(timing.image_age_ms),
            'state_age_ms': timing.state_age_ms,
            'rows_over': min(chunk.horizon, (tick.ready_ns - chunk.start_ns) // chunk.step_ns),
            'starved_ms': self._starved_ms(tick) if joined else 0.0,
        }
        values |= self._errors(chunk.actions.astype(np.float64), recorded)
        values |= self._seam(tick) if joined else {}
        values |= self._motion(tick, after, recorded)
        for j, name in enumerate(chunk.names):
            values[f'action.{name}'] = float(chunk.actions[0, j])
            values[f'recorded.{name}'] = float(recorded[0, j])
        return Judged(tick, values, recorded)

    def _joined(self, tick: Tick) -> bool:
        """Whether the chunk before goes over into this one: the same run, no gap."""
        if self._before is None or tick.result.chunk.flags & ChunkFlag.FIRST:
            return False
        before = self._before.result.chunk
        return before.start_ns < tick.result.chunk.start_ns <= before.end_ns + NS

    def _errors(self, actions: Float64Array, recorded: Float64Array) -> dict[str, float]:
        error = actions - recorded
        known = np.isfinite(error)
        found: dict[str, float] = {'compared_rows': int(known.any(axis=1).sum())}
        for name, rows in self._spans.items():
            head = error[:rows]
            for measure, part in (('mae', np.abs(head)), ('mse', head * head)):
                found[f'{measure}_{name}'] = _mean(part)
                for j, joint in enumerate(self._robot.joint_names):
                    found[f'{measure}_{name}.{joint}'] = _mean(part[:, j])
        if self._grippers:
            g = self._grippers
            same = (actions > self._middle)[:, g] == (recorded > self._middle)[:, g]
            same |= np.abs(error[:, g]) <= self._near[g]
            found['gripper_agreement'] = _mean(np.where(known[:, g], same, np.nan))
        if self._tip is not None:
            apart = self._tip.positions(actions) - self._tip.positions(recorded)
            found['tip_error'] = _mean(np.linalg.norm(apart, axis=1))
        return found

    def _seam(self, tick: Tick) -> dict[str, float]:
        """How far the new chunk is from the old one where it takes over."""
        assert self._before is not None
        old, new = self._before.result.chunk, tick.result.chunk
        i, k = _row(old, tick.ready_ns), _row(new, tick.ready_ns)
        if not (0 <= i < old.horizon and 0 <= k < new.horizon):
            return {}
        jump = np.abs(new.actions[k].astype(np.float64) - old.actions[i])
        per_joint = {f'seam.{n}': float(v) for n, v in zip(new.names, jump, strict=True)}
        return {'seam': float(jump.mean()), **per_joint}

    def _motion(self, tick: Tick, after: Tick | None, recorded: Float64Array) -> dict[str, float]:
        """Jerk, and steps that are too far, of what is in force until the next chunk is.

        The motion is looked at once a step, on a grid that goes through all chunks of a run: a
        chunk that is replaced within a step may have no moment of its own.
        """
        chunk = tick.result.chunk
        if not self._done:
            self._grid_ns = tick.ready_ns
        until_ns = chunk.end_ns if after is None else min(after.ready_ns, chunk.end_ns)
        moments = range(self._grid_ns, until_ns, chunk.step_ns)
        rows = [k for k in (_row(chunk, ns) for ns in moments) if 0 <= k < chunk.horizon]
        if not rows:
            return {}
        self._grid_ns = moments[-1] + chunk.step_ns
        step = chunk.step_ns / NS
        path = np.array([*self._done, *chunk.actions[rows].astype(np.float64)])
        moves = np.abs(np.diff(path, axis=0))[-len(rows) :]
        found = {
            'jerk': _jerk(path, step),
            'jerk_recorded': _jerk(np.array([*self._did, *recorded[rows]]), step),
        }
        self._done.extend(path[-len(rows) :])
        self._did.extend(recorded[rows])
        return found | ({'limit_rate': _mean(moves > self._step_limit)} if moves.size else {})

    def _starved_ms(self, tick: Tick) -> float:
        """How long there was no chunk to follow before this one was there."""
        assert self._before is not None
        old = self._before.result.chunk
        age_ns = round(self._robot.safety.max_chunk_age_ms * 1e6)
        usable_ns = min(old.end_ns, old.start_ns + age_ns)
        return max(0.0, (tick.ready_ns - usable_ns) / 1e6)


def _row(chunk: ActionChunk, now_ns: int) -> int:
    return row_at(chunk.start_ns, chunk.step_ns, now_ns)


def _jerk(path: Float64Array, step: float) -> float:
    """RMS over rows and joints of the third difference, unit/s^3; NaN for fewer than four rows."""
    third = np.diff(path, n=3, axis=0) / step**3
    return float(np.sqrt(_mean(third * third)))


def _mean(values: Float64Array | NDArray[np.bool_]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float('nan')
