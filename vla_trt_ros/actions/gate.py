"""The safety gate: the one place through which chunks become commands. docs/safety.md has the
ladder as a table.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.actions import reasons
from vla_trt_ros.actions.admission import Admission, Admitted, Refusal
from vla_trt_ros.actions.drive import Drive
from vla_trt_ros.actions.feedback import Feedback
from vla_trt_ros.actions.limits import Limits
from vla_trt_ros.actions.status import GateStatus
from vla_trt_ros.actions.watch import Watch
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import (
    NS,
    ActionChunk,
    Command,
    CommandKind,
    Counters,
    Float64Array,
    JointSample,
    LabelledBox,
    Reason,
    State,
)
from vla_trt_ros.errors import BadAction, BadState
from vla_trt_ros.freshness import Freshness

CLOCK_SLACK_NS = 10_000_000
"""Time may step back this far, as a disciplined clock does, before it counts as a jump."""
TRACKING_WINDOW_NS = 10 * NS
"""`SafetyConfig.max_tracking_errors` counts within this."""
_JUDGED_ANEW = (
    Reason.NO_STATE,
    Reason.STALE_STATE,
    Reason.BAD_STATE,
    Reason.BAD_ACTION,
    Reason.PERCEPTION_HOLD,
    Reason.STALE_DETECTIONS,
)


class CommandGate:
    """The ladder WAITING, RUNNING, HOLDING, STOPPED, with ESTOPPED and INACTIVE beside it.

    One thread offers inputs and calls `tick`, at control_rate and after an input that should act
    at once. All times are nanoseconds of one clock. ``kind``: default is the robot file's.
    ``dry_run``: everything is computed, no Command leaves. ``watch``: what must not be in view of
    the cameras while the arm moves; None: nobody looks.
    """

    def __init__(
        self,
        robot: RobotConfig,
        *,
        kind: CommandKind | None = None,
        dry_run: bool = True,
        enabled: bool = True,
        watch: Watch | None = None,
    ) -> None:
        self.robot = robot
        self.watch = watch
        self._pace = 1.0
        self._paced_ns: int | None = None
        self.kind = kind or CommandKind(robot.controller.kind)
        self.dry_run = dry_run
        self._safety = robot.safety
        limits = Limits.of(robot)
        self._admission = Admission(robot, dry_run=dry_run)
        self._feedback = Feedback(robot, limits)
        self._drive = Drive(robot, limits, self.kind)
        self._counters = Counters()
        self._clamped = np.zeros(len(robot.joints), dtype=np.int64)
        # 90 % of the way from closed to open; what is no gripper is never below it.
        self._wide_open = np.array(
            [
                j.lower + 0.9 * (j.upper - j.lower) if j.unit == 'ratio' else -np.inf
                for j in robot.joints
            ]
        )
        self._enabled = enabled
        self._estop_input = False
        self._pending: Admitted | None = None
        self._bad_chunk = reasons.OK
        self._tracking_errors: deque[int] = deque()
        self._now_ns: int | None = None
        self._restarted_ns: int | None = None
        self._state = State.WAITING if enabled else State.INACTIVE
        self._since_ns = 0
        # `_why` is shown; `_idle` is what it goes back to when the inputs are good again.
        self._why = self._idle = reasons.NO_CHUNK if enabled else reasons.DISABLED

    def offer_chunk(self, chunk: ActionChunk, now_ns: int) -> Reason:
        """Take ``chunk`` for the next `tick`; NONE, or why it was refused.

        A chunk made for another robot, or with NaN or Inf, also makes a moving arm hold at once:
        its policy cannot be trusted. Any other refusal leaves the running rows alone.
        """
        now_ns = self._advance(now_ns)
        if self._state in (State.INACTIVE, State.STOPPED, State.ESTOPPED):
            self._counters.add('chunk_ignored')
            return self._why.reason
        checked = self._admission.check(chunk, now_ns, since_ns=self._restarted_ns)
        if isinstance(checked, Admitted):
            self._counters.add('chunks')
            self._pending, self._bad_chunk = checked, reasons.OK
            return Reason.NONE
        self._refuse(checked)
        return checked.reason

    def offer_joints(self, sample: JointSample, now_ns: int) -> Reason:
        """Take joint states; NONE, or BAD_STATE or STALE_STATE where they are refused."""
        self._advance(now_ns)
        fault = self._feedback.offer(sample)
        if not fault:
            return Reason.NONE
        self._reject(fault)
        return Reason.BAD_STATE if fault == 'state_bad' else Reason.STALE_STATE

    def offer_detections(
        self, camera: str, stamp_ns: int, boxes: Iterable[LabelledBox], now_ns: int
    ) -> None:
        """What the picture of ``camera``, exposed at ``stamp_ns``, shows; the next `tick` acts."""
        now_ns = self._advance(now_ns)
        if self.watch is not None:
            fault = self.watch.offer(camera, stamp_ns, boxes, now_ns)
            if fault:
                self._reject(fault)

    def refuse_detections(self, now_ns: int) -> None:
        """Detections that cannot be used; where no others come, the arm holds."""
        self._advance(now_ns)
        self._reject('detections_bad')

    def refuse_chunk(self, error: BadAction, now_ns: int) -> None:
        """A chunk message so malformed that no ActionChunk could be made of it."""
        self._advance(now_ns)
        self._refuse(Refusal(Reason.BAD_ACTION, 'chunk_bad', str(error)))

    def refuse_joints(self, error: BadState, now_ns: int) -> None:
        """Joint states so malformed that no JointSample could be made of them."""
        self._advance(now_ns)
        self._feedback.refuse(error)
        self._reject('state_bad')

    def estop(self, pressed: bool, now_ns: int) -> None:
        """The e-stop input: True latches ESTOPPED, False only allows `reset_estop`.

        Where the gate has moved the robot, the next `tick` gives one command that holds the
        measured position; after it nothing is sent.
        """
        now_ns = self._advance(now_ns)
        self._estop_input = pressed
        if not pressed or self._state is State.ESTOPPED:
            return
        self._counters.add('estops')
        self._enter(State.ESTOPPED, reasons.ESTOP, now_ns)
        self._rest_at_measured(now_ns, 1.0 / self.robot.control_rate)

    def reset_estop(self, now_ns: int) -> tuple[bool, str]:
        """Unlatch the e-stop into STOPPED: (done, sentence). Refused while the input is true.

        Moving again takes a second act, `reset` (ISO 13850: a reset is no command to start).
        """
        now_ns = self._advance(now_ns)
        if self._state is not State.ESTOPPED:
            return True, 'the e-stop was not latched.'
        if self._estop_input:
            return False, 'the e-stop input is still true: release it first.'
        if not self._enabled:
            self._enter(State.INACTIVE, reasons.DISABLED, now_ns)
        else:
            self._enter(State.STOPPED, reasons.RELEASED, now_ns)
        return True, self._why.text

    def reset(self, now_ns: int) -> tuple[bool, str]:
        """Leave STOPPED: (done, sentence). Does not unlatch the e-stop."""
        now_ns = self._advance(now_ns)
        if self._state in (State.ESTOPPED, State.INACTIVE):
            return False, self._why.text
        if self._state is not State.STOPPED:
            return True, f'nothing to reset: {self._state.name}.'
        return self._restart(now_ns)

    def enable(self, on: bool, now_ns: int) -> tuple[bool, str]:
        """False brakes to a hold and then sends nothing; True starts as from WAITING.

        Enabling is refused while the e-stop is latched, and leaves STOPPED to `reset`.
        """
        now_ns = self._advance(now_ns)
        if self._state is State.ESTOPPED:
            if on:
                return False, self._why.text
            self._enabled = False
            return True, 'disabled; the e-stop is latched besides.'
        self._enabled = on
        if on:
            if self._state is State.INACTIVE:
                return self._restart(now_ns)
            return True, f'already enabled: {self._state.name}.'
        if self._state is State.RUNNING:
            self._drive.brake(now_ns)
        self._enter(State.INACTIVE, reasons.DISABLED, now_ns)
        return True, 'disabled.'

    def tick(self, now_ns: int) -> tuple[Command | None, GateStatus]:
        """What to send at ``now_ns``, if anything, and the status.

        'trajectory': a Command when a chunk was joined and when a hold begins. 'position': one
        row in every tick while RUNNING or HOLDING.
        """
        now_ns = self._advance(now_ns)
        if self._state is State.RUNNING:
            self._run(now_ns)
        elif self._state in (State.WAITING, State.HOLDING):
            self._wait(now_ns)
        if self._state is State.ESTOPPED:
            command = self._drive.last_command()
        else:
            repeat = self._state in (State.RUNNING, State.HOLDING)
            command = self._drive.command(now_ns, repeat=repeat)
        return (None if self.dry_run else command), self.status()

    def status(self) -> GateStatus:
        """The status as of the last call that gave a time."""
        running = self._state is State.RUNNING
        why = self._slowness(self._now_ns or 0) if running else self._why
        return GateStatus(
            state=self._state,
            reason=why.reason,
            text=why.text,
            dry_run=self.dry_run,
            estop_latched=self._state is State.ESTOPPED,
            rows_left=self._drive.rows_left(self._now_ns or 0) if running else 0,
            chunks=self._counters['chunks'],
            rejected=self._counters['rejected'],
            clamped=dict(zip(self.robot.joint_names, self._clamped.tolist(), strict=True)),
            counts=dict(self._counters.counts),
        )

    def _wait(self, now_ns: int) -> None:
        fault = self._fault(now_ns)
        # After a clock jump there are no joint states yet; the jump is the reason to tell.
        expected = fault.reason is Reason.NO_STATE and self._idle.reason is Reason.CLOCK
        self._why = self._idle if fault.ok or expected else fault
        if fault.reason is Reason.PERCEPTION_HOLD:
            # Waiting until somebody has left is no fault: it may last, and ends by itself.
            self._since_ns = now_ns
        if fault.ok and self._pending is not None:
            self._start(self._pending, now_ns)
        held = (now_ns - self._since_ns) / NS
        if self._state is State.HOLDING and held >= self._safety.stop_after:
            self._stop(f'held for {held:.1f} s', now_ns)

    def _start(self, chunk: Admitted, now_ns: int) -> None:
        measured = self._feedback.measured()
        # A position told while the arm still braked is not where it rests.
        if measured is None or not self._drive.over(measured[1]):
            return
        self._pending = None
        here = self._keeping_grip(measured[0], now_ns)
        self._paced_ns = None
        self._set_pace(now_ns)
        if self._count(self._drive.start(chunk, here, now_ns)):
            self._enter(State.RUNNING, reasons.OK, now_ns)

    def _run(self, now_ns: int) -> None:
        fault = self._fault(now_ns)
        if fault.ok:
            fault = self._tracking()
        self._set_pace(now_ns)
        if fault.ok and self._pending is not None:
            chunk, self._pending = self._pending, None
            self._count(self._drive.follow(chunk, now_ns))
        if not fault.ok:
            self._hold(fault, now_ns)
        elif self._drive.over(now_ns):
            self._hold(reasons.USED_UP, now_ns)

    def _fault(self, now_ns: int) -> Freshness:
        joints = self._feedback.freshness(now_ns)
        fault = self._bad_chunk if joints.ok else joints
        return self.watch.freshness(now_ns) if fault.ok and self.watch is not None else fault

    def _slowness(self, now_ns: int) -> Freshness:
        return reasons.OK if self.watch is None else self.watch.slowness(now_ns)

    def _set_pace(self, now_ns: int) -> None:
        """Towards slow or full speed, all the way in brake_time, and no faster than that."""
        if self.watch is None:
            return
        goal = 1.0 if self._slowness(now_ns).ok else self.watch.config.slow_factor
        before_ns, self._paced_ns = self._paced_ns, now_ns
        step = (
            (now_ns - before_ns) / NS / self._safety.brake_time if before_ns is not None else 1.0
        )
        self._pace += min(max(goal - self._pace, -step), step)
        self._drive.set_pace(self._pace)

    def _tracking(self) -> Freshness:
        measured = self._feedback.measured()
        # In a dry run nothing is commanded, so nothing follows.
        if self.dry_run or measured is None:
            return reasons.OK
        position, stamp_ns = measured
        commanded = self._drive.commanded(stamp_ns)
        return reasons.OK if commanded is None else self._feedback.tracking(position, commanded)

    def _hold(self, fault: Freshness, now_ns: int) -> None:
        self._counters.add(f'hold_{fault.reason.name.lower()}')
        self._enter(State.HOLDING, fault, now_ns)
        if fault.reason is not Reason.TRACKING_ERROR:
            self._drive.brake(now_ns)
            return
        # Holding the commanded position would go on pushing at whatever blocks the arm.
        self._rest_at_measured(now_ns, self._safety.brake_time)
        errors, most = self._tracking_errors, self._safety.max_tracking_errors
        errors.append(now_ns)
        while errors[0] < now_ns - TRACKING_WINDOW_NS:
            errors.popleft()
        if most and len(errors) >= most:
            self._stop(f'{len(errors)} tracking errors within 10 s', now_ns)

    def _rest_at_measured(self, now_ns: int, duration: float) -> None:
        position = self._drive.commanded(now_ns)
        if position is None:
            return
        measured = self._feedback.measured()
        if measured is not None and self._feedback.freshness(now_ns).ok:
            position = self._keeping_grip(measured[0], now_ns)
        self._drive.rest(position, now_ns, duration)

    def _keeping_grip(self, measured: Float64Array, now_ns: int) -> Float64Array:
        """``measured`` [D], but grippers where they are commanded to be.

        A gripper closed on an object is further open than it was sent; to be sent where it is
        would let the object go. One that is wide open holds nothing: somebody else opened it.
        """
        commanded = self._drive.commanded(now_ns)
        if commanded is None:
            return measured
        kept: Float64Array = np.where(measured < self._wide_open, commanded, measured)
        return kept

    def _stop(self, why: str, now_ns: int) -> None:
        self._counters.add('stops')
        text = f'{why}, call ~/reset to go on. Last reason: {self._why.text}'
        self._enter(State.STOPPED, Freshness(self._why.reason, text), now_ns)

    def _restart(self, now_ns: int) -> tuple[bool, str]:
        self._admission.forget()
        self._restarted_ns = now_ns
        self._bad_chunk = reasons.OK
        self._tracking_errors.clear()
        self._enter(State.WAITING, reasons.NO_CHUNK, now_ns)
        return True, 'done; the next chunk moves the arm.'

    def _enter(self, state: State, why: Freshness, now_ns: int) -> None:
        self._state, self._why, self._since_ns = state, why, now_ns
        # What `_fault` tells anew in every tick is not what it waits for once that is over.
        self._idle = reasons.NO_CHUNK if why.reason in _JUDGED_ANEW else why
        # Only a chunk that comes after this may move the arm again.
        self._pending = None

    def _advance(self, now_ns: int) -> int:
        """``now_ns``, never before the last one; where time jumped back, start anew."""
        last_ns = self._now_ns
        if last_ns is None or now_ns >= last_ns - CLOCK_SLACK_NS:
            self._now_ns = now_ns if last_ns is None else max(now_ns, last_ns)
            return self._now_ns
        self._now_ns = now_ns
        self._restarted_ns = None
        self._counters.add('clock_jumps')
        self._feedback.forget()
        if self.watch is not None:
            self.watch.forget()
        self._paced_ns = None
        self._tracking_errors.clear()
        moving = self._state in (State.RUNNING, State.HOLDING)
        self._drive.rebase(last_ns, now_ns, send=moving)
        why = self._why
        if moving:
            back = (last_ns - now_ns) / 1e6
            why = Freshness(
                Reason.CLOCK, f'time jumped back by {back:.0f} ms: synchronise the clocks.'
            )
        self._enter(State.HOLDING if moving else self._state, why, now_ns)
        return now_ns

    def _count(self, clamped: NDArray[np.int64] | None) -> bool:
        if clamped is None:
            self._reject('chunk_used_up')
            return False
        self._clamped += clamped
        return True

    def _refuse(self, refusal: Refusal) -> None:
        self._reject(refusal.counter)
        why = Freshness(refusal.reason, refusal.text)
        if refusal.reason is Reason.BAD_ACTION:
            self._bad_chunk = why
        elif self._state in (State.WAITING, State.HOLDING):
            self._idle = why

    def _reject(self, counter: str) -> None:
        self._counters.add(counter)
        self._counters.add('rejected')
