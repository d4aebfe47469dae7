"""What was done in a recording: the joint targets that a chunk is held against.

Three sources, the first that the recording has: commands to the controller, the chunks of the
policy that ran then, or where the joints went. Row k of a chunk that starts at s is compared with
what was commanded in the middle of its time, s + (k + 1/2) step, a trajectory's points and joint
states with where they are at its end, s + (k + 1) step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Literal

import numpy as np

from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import (
    NS,
    ActionChunk,
    Command,
    CommandKind,
    Float64Array,
    JointSample,
)

Source = Literal['command', 'chunk', 'joints']
SOURCES: tuple[Source, ...] = ('command', 'chunk', 'joints')

_HELD_ROWS = 5
"""Rows that a position command counts for when no other follows: after them it is too old."""
_GAP_ROWS = 4
"""Rows between two joint states, at most, to know where the joints were between them."""


class RecordedActions:
    """Keeps what was done of ``source``; rows are asked for in rising time, and forgotten behind.

    Joints are found by name; those that the recording does not command are NaN.
    """

    def __init__(self, robot: RobotConfig, source: Source) -> None:
        self.source = source
        self._names = robot.joint_names
        self._step_ns = robot.step_ns
        self._kept: deque[tuple[int, Command | ActionChunk | JointSample]] = deque()
        self.known_ns = 0
        """Up to when nothing will be added any more."""

    def offer(self, time_ns: int, payload: Command | ActionChunk | JointSample) -> None:
        """One command, chunk or joint sample, recorded at ``time_ns``."""
        since = time_ns if isinstance(payload, ActionChunk) else payload.stamp_ns
        if self._kept and since <= self._kept[-1][0]:
            if self._kept[-1][0] - since < NS:
                return
            self._kept.clear()  # the clock began anew: another run
        self._kept.append((since, payload))

    def advance(self, time_ns: int) -> None:
        """The recording is at ``time_ns``."""
        self.known_ns = time_ns

    def rows(self, start_ns: int, step_ns: int, count: int) -> Float64Array:
        """float64 [count, D], units and order of the robot file, NaN where it is not known."""
        found = np.full((count, len(self._names)), np.nan)
        times = [since for since, _ in self._kept]
        for k in range(count):
            begin_ns = start_ns + k * step_ns
            i = bisect_right(times, begin_ns + step_ns // 2) - 1
            if self.source == 'joints':
                self._state_at(begin_ns + step_ns, times, found[k])
            elif i >= 0:
                since, payload = self._kept[i]
                if isinstance(payload, Command):
                    self._commanded(payload, since, begin_ns, step_ns, found[k])
                elif isinstance(payload, ActionChunk):
                    self._planned(payload, begin_ns + step_ns // 2, found[k])
        return found

    def forget(self, before_ns: int) -> None:
        """Drop what no row from ``before_ns`` on needs."""
        while len(self._kept) > 2 and self._kept[1][0] < before_ns - self._step_ns:
            self._kept.popleft()

    def _commanded(
        self, command: Command, since_ns: int, begin_ns: int, step_ns: int, row: Float64Array
    ) -> None:
        if command.kind is CommandKind.POSITION or len(command.times) < 2:
            if begin_ns - since_ns <= _HELD_ROWS * step_ns:
                self._put(command.names, command.positions[-1], row)
            return
        at = (begin_ns + step_ns - since_ns) / NS
        if at > command.times[-1] + _HELD_ROWS * step_ns / NS:
            return
        points = [np.interp(at, command.times, column) for column in command.positions.T]
        self._put(command.names, np.array(points), row)

    def _planned(self, chunk: ActionChunk, middle_ns: int, row: Float64Array) -> None:
        k = (middle_ns - chunk.start_ns) // chunk.step_ns
        if 0 <= k < chunk.horizon:
            self._put(chunk.names, chunk.actions[k].astype(np.float64), row)

    def _state_at(self, at_ns: int, times: list[int], row: Float64Array) -> None:
        i = bisect_right(times, at_ns)
        if not i > 0:
            return
        before = self._kept[i - 1][1]
        assert isinstance(before, JointSample)
        if before.stamp_ns == at_ns:
            self._put(before.names, before.positions, row)
            return
        if i == len(times):
            return
        after = self._kept[i][1]
        assert isinstance(after, JointSample)
        gap_ns = after.stamp_ns - before.stamp_ns
        if gap_ns > _GAP_ROWS * self._step_ns:
            return
        w = (at_ns - before.stamp_ns) / gap_ns
        early, late = np.full_like(row, np.nan), np.full_like(row, np.nan)
        self._put(before.names, before.positions, early)
        self._put(after.names, after.positions, late)
        row[:] = (1.0 - w) * early + w * late

    def _put(self, names: tuple[str, ...], values: Float64Array, row: Float64Array) -> None:
        for j, name in enumerate(self._names):
            if name in names:
                row[j] = values[names.index(name)]
