"""Which chunks may be executed: shape, values, order, age. What is refused is told by reason."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from vla_trt_ros.actions.layout import check_rows
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import NS, ActionChunk, ActionSpace, ChunkFlag, Float64Array, Reason
from vla_trt_ros.errors import BadAction
from vla_trt_ros.freshness import FUTURE_TOLERANCE_NS

MAX_START_AHEAD_NS = NS
"""A chunk that starts later than this after now is from a clock that is not ours."""
_STEP_TOLERANCE = 0.01
_REMEMBERED_RUNS = 16


@dataclass(frozen=True, slots=True)
class Admitted:
    """A chunk that may be executed: ``rows`` float64 [H, D], robot joint order, not limited."""

    rows: Float64Array
    start_ns: int
    step_ns: int
    valid_from: int
    until_ns: int
    """Rows reached later than this are older than max_chunk_age_ms by then: not executed."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not: the typed reason, the counter it adds to, and the sentence for people."""

    reason: Reason
    counter: str
    text: str


class Admission:
    """Checks chunks one after another and remembers their order.

    Within a run, chunk ids must rise. A new run (the policy node was restarted) takes over, and a
    run that was taken over from stays refused, so that two policy nodes cannot pull the arm to
    and fro. ``dry_run``: also admit chunks that the policy node marked DRY_RUN.
    """

    def __init__(self, robot: RobotConfig, *, dry_run: bool) -> None:
        self._names = robot.joint_names
        self._step_ns = robot.step_ns
        self._max_age_ms = robot.safety.max_chunk_age_ms
        self._dry_run = dry_run
        self._run_id: bytes | None = None
        self._chunk_id = -1
        self._past_runs: deque[bytes] = deque(maxlen=_REMEMBERED_RUNS)

    def forget(self) -> None:
        """Admit any run and any chunk id again."""
        self._run_id = None
        self._past_runs.clear()

    def check(
        self, chunk: ActionChunk, now_ns: int, *, since_ns: int | None = None
    ) -> Admitted | Refusal:
        """``chunk`` as rows in robot joint order, or the first reason against it.

        What was observed before ``since_ns`` is too old, whatever its age.
        """
        try:
            rows = self._rows(chunk)
        except BadAction as error:
            return Refusal(Reason.BAD_ACTION, 'chunk_bad', f'chunk {chunk.chunk_id}: {error}')
        refusal = self._timing(chunk, now_ns, since_ns) or self._order(chunk)
        if refusal is not None:
            return refusal
        if self._run_id is not None and chunk.run_id != self._run_id:
            self._past_runs.append(self._run_id)
        self._run_id, self._chunk_id = chunk.run_id, chunk.chunk_id
        until_ns = chunk.observation_ns + round(self._max_age_ms * 1e6)
        return Admitted(rows, chunk.start_ns, chunk.step_ns, chunk.valid_from, until_ns)

    def _rows(self, chunk: ActionChunk) -> Float64Array:
        if chunk.action_space is not ActionSpace.JOINT_POSITION:
            raise BadAction(
                f'action space is {chunk.action_space.name}, the gate takes JOINT_POSITION.'
            )
        if sorted(chunk.names) != sorted(self._names):
            raise BadAction(
                f'it is for joints {", ".join(chunk.names)}; this robot has '
                f'{", ".join(self._names)}: use a bundle made for it.'
            )
        if abs(chunk.step_ns - self._step_ns) > _STEP_TOLERANCE * self._step_ns:
            raise BadAction(
                f'a row lasts {chunk.step_ns / 1e6:.1f} ms, at this control_rate it must be '
                f'{self._step_ns / 1e6:.1f} ms.'
            )
        rows = check_rows(chunk.actions, chunk.names)
        return rows[:, [chunk.names.index(n) for n in self._names]]

    def _timing(self, chunk: ActionChunk, now_ns: int, since_ns: int | None) -> Refusal | None:
        ahead_ns = chunk.start_ns - now_ns
        observed_ahead_ns = chunk.observation_ns - now_ns
        if ahead_ns > MAX_START_AHEAD_NS or observed_ahead_ns > FUTURE_TOLERANCE_NS:
            ahead = max(ahead_ns, observed_ahead_ns) / 1e6
            return Refusal(
                Reason.CLOCK,
                'chunk_from_future',
                f'chunk {chunk.chunk_id} is stamped {ahead:.0f} ms ahead; synchronise the clocks.',
            )
        age_ms = -observed_ahead_ns / 1e6
        if age_ms > self._max_age_ms:
            return Refusal(
                Reason.STALE_CHUNK,
                'chunk_old',
                f'chunk {chunk.chunk_id} was made from images {age_ms:.0f} ms old '
                f'(max_chunk_age_ms {self._max_age_ms:.0f}).',
            )
        if since_ns is not None and chunk.observation_ns < since_ns:
            return Refusal(
                Reason.STALE_CHUNK,
                'chunk_before_restart',
                f'chunk {chunk.chunk_id} was made from images of before the reset or enable.',
            )
        if chunk.end_ns <= now_ns:
            late = (now_ns - chunk.end_ns) / 1e6
            return Refusal(
                Reason.STALE_CHUNK,
                'chunk_past',
                f'chunk {chunk.chunk_id} was over {late:.0f} ms before it came.',
            )
        return None

    def _order(self, chunk: ActionChunk) -> Refusal | None:
        if ChunkFlag.DRY_RUN in chunk.flags and not self._dry_run:
            return Refusal(
                Reason.DISABLED,
                'chunk_dry_run',
                f'chunk {chunk.chunk_id} was made in a dry run: start the policy without dry_run.',
            )
        if chunk.run_id in self._past_runs:
            return Refusal(
                Reason.STALE_CHUNK,
                'chunk_of_past_run',
                f'chunk {chunk.chunk_id} is of a run that another took over from: '
                'is a second policy node running? ~/reset admits it again.',
            )
        if chunk.run_id == self._run_id and chunk.chunk_id <= self._chunk_id:
            return Refusal(
                Reason.STALE_CHUNK,
                'chunk_out_of_order',
                f'chunk {chunk.chunk_id} came after chunk {self._chunk_id} of the same run.',
            )
        return None
