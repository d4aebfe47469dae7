"""The commanded motion: started, followed, braked, and sent in the controller's kind."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.actions.admission import Admitted
from vla_trt_ros.actions.blend import FadeIn, join
from vla_trt_ros.actions.limits import Limits
from vla_trt_ros.actions.timeline import Timeline
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import NS, Command, CommandKind, Float64Array

# Joint states speak of a moment before the newest chunk came; 64 chunks are more than a second.
_REMEMBERED = 64


class Drive:
    """Knows where the robot is commanded to be, at any time; decides nothing about when to move.

    Positions and velocities are float64 [D], units and order of the robot file.
    """

    def __init__(self, robot: RobotConfig, limits: Limits, kind: CommandKind) -> None:
        self._limits = self._full = limits
        self._kind = kind
        self._safety = robot.safety
        self._period_ns = robot.step_ns
        self._motion: Timeline | None = None
        self._past: deque[Timeline] = deque(maxlen=_REMEMBERED)
        self._fade_in: FadeIn | None = None
        self._unsent: Timeline | None = None
        self._sent: tuple[Float64Array, int] | None = None

    def set_pace(self, share: float) -> None:
        """Keep to ``share``, above 0 to 1, of the speed limits in what is joined from now on."""
        self._limits = replace(self._full, speed=self._full.speed * share)

    def over(self, now_ns: int) -> bool:
        """True while nothing moves: before the first motion, and after the end of each."""
        return self._motion is None or now_ns >= self._motion.end_ns

    def rows_left(self, now_ns: int) -> int:
        """Rows of the motion that are still ahead."""
        return 0 if self._motion is None else self._motion.rows_left(now_ns)

    def commanded(self, when_ns: int) -> Float64Array | None:
        """Where the robot is commanded to be, or was a little while ago; None where it was not
        commanded yet.
        """
        for motion in reversed(self._past):
            if motion.start_ns <= when_ns:
                return motion.at(when_ns)[0]
        return None

    def start(
        self, chunk: Admitted, measured: Float64Array, now_ns: int
    ) -> NDArray[np.int64] | None:
        """From rest at ``measured``, fading the policy in. As `follow`."""
        fade_in = FadeIn(measured, now_ns, self._safety.blend_in)
        rest = Timeline.rest(measured, now_ns, self._period_ns / NS)
        clamped = self._join(chunk, rest, fade_in, now_ns)
        if clamped is not None:
            # The robot is where it is measured now, wherever it was commanded to be before.
            while len(self._past) > 1:
                self._past.popleft()
            self._fade_in = fade_in
            self._sent = (measured, now_ns - self._period_ns)
        return clamped

    def follow(self, chunk: Admitted, now_ns: int) -> NDArray[np.int64] | None:
        """Join ``chunk`` onto the motion: elements clamped per joint, int64 [D].

        None, and nothing changed, where no row of it is left to execute.
        """
        if self._motion is None:
            return None
        if self._fade_in is not None and self._fade_in.over(now_ns):
            self._fade_in = None
        return self._join(chunk, self._motion, self._fade_in, now_ns)

    def brake(self, now_ns: int) -> None:
        """Slow to rest over brake_time, from where the motion is now."""
        if self._motion is not None:
            position, velocity = self._motion.at(now_ns)
            self._brake(position, velocity, now_ns)

    def rebase(self, last_ns: int, now_ns: int, *, send: bool) -> None:
        """Time jumped from ``last_ns`` back to ``now_ns``: brake from where the motion was.

        ``send`` False: the motion was over for the controller; be at rest and tell nobody.
        """
        if self._motion is None:
            return
        position, velocity = self._motion.at(last_ns)
        if send:
            self._past.clear()
            self._brake(position, velocity, now_ns)
            if self._sent is not None:
                self._sent = (self._sent[0], now_ns - self._period_ns)
            return
        self._past.clear()
        self._become(Timeline.rest(position, now_ns - self._period_ns, self._period_ns / NS))

    def rest(self, position: Float64Array, now_ns: int, duration: float) -> None:
        """Be at ``position`` within ``duration`` s and stay: for where the robot already is."""
        self._unsent = self._become(Timeline.rest(position, now_ns, duration))
        self._sent = (position, now_ns - self._period_ns)

    def command(self, now_ns: int, *, repeat: bool) -> Command | None:
        """What the controller has not been told yet.

        'trajectory': a motion once, when it is new. 'position': a row in each call while the
        motion lasts, and after its end where ``repeat``.
        """
        motion, unsent, self._unsent = self._motion, self._unsent, None
        if self._kind is CommandKind.TRAJECTORY:
            return None if unsent is None else self._whole(unsent)
        if motion is None or self._sent is None or not (repeat or not self.over(now_ns)):
            return None
        position, velocity = motion.at(now_ns + self._period_ns)
        sent, sent_ns = self._sent
        # A tick that comes late must not make up for it in one leap.
        reach = self._full.speed * min(now_ns - sent_ns, self._period_ns) / NS
        position = np.clip(position, sent - reach, sent + reach)
        self._sent = (position, now_ns)
        period = np.array([self._period_ns / NS])
        return Command(
            self._kind, now_ns, self._limits.names, position[None], velocity[None], period
        )

    def last_command(self) -> Command | None:
        """The new motion's end as one row, of either kind; nothing is sent after it."""
        unsent, self._unsent = self._unsent, None
        return None if unsent is None else self._whole(unsent)

    def _join(
        self, chunk: Admitted, running: Timeline, fade_in: FadeIn | None, now_ns: int
    ) -> NDArray[np.int64] | None:
        plan = join(
            running,
            chunk.rows,
            chunk.start_ns,
            chunk.step_ns,
            now_ns,
            self._limits,
            valid_from=chunk.valid_from,
            until_ns=chunk.until_ns,
            blend_time=self._safety.blend_time,
            fade_in=fade_in,
        )
        if plan is None:
            return None
        self._unsent = self._become(plan.timeline)
        return plan.clamped

    def _brake(self, position: Float64Array, velocity: Float64Array, now_ns: int) -> None:
        limits = self._limits
        motion = Timeline.brake(
            position, velocity, now_ns, self._safety.brake_time, limits.lower, limits.upper
        )
        self._unsent = self._become(motion)

    def _become(self, motion: Timeline) -> Timeline:
        self._motion = motion
        self._past.append(motion)
        return motion

    def _whole(self, motion: Timeline) -> Command:
        return Command(
            self._kind,
            motion.start_ns,
            self._limits.names,
            motion.positions[1:],
            motion.velocities[1:],
            motion.times[1:],
        )
