"""A recording through a `Pipeline`, tick by tick, as the inference thread of the node would.

Two clocks. Fast: every new pair of frames becomes a chunk, at the moment it was recorded, as if
inference took no time. Real: inference takes its time, frames that come meanwhile are dropped or
grow stale, and the policy's max_rate is kept, all in recorded time and by the node's own rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from vla_trt_ros.datatypes import NS, CameraFrame, ChunkFlag, Counters, Reason
from vla_trt_ros.errors import BadInput
from vla_trt_ros.freshness import Freshness, reason_of
from vla_trt_ros.pacing import Pace
from vla_trt_ros.pipeline import Pipeline, TickResult

_NO_PROMPT = Freshness(Reason.NO_PROMPT, 'no prompt in the recording: give one with --prompt.')

Latency = Callable[[TickResult], int]
"""How long a tick took, ns: what the clock says it did, or what a model says it would."""


class Event(Protocol):
    """One thing of a recording, in the order of recording (bags/reader.py gives them)."""

    @property
    def time_ns(self) -> int:
        """When it was recorded."""
        ...

    @property
    def kind(self) -> str:
        """'camera', 'joints', 'prompt', 'chunk', 'command', or one that is of no use here."""
        ...

    @property
    def name(self) -> str:
        """The view of a camera; else as the reader says."""
        ...

    @property
    def payload(self) -> Any:
        """`CameraFrame`, `JointSample`, str, `ActionChunk` or `Command`."""
        ...


@dataclass(frozen=True, slots=True)
class Tick:
    """A chunk that was made, from what, and when it would have been published."""

    index: int
    """Frame pairs of the bag before this one, whether judged, refused or skipped."""
    result: TickResult
    frames: dict[str, CameraFrame]
    prompt: str
    now_ns: int
    """When inference began, recorded time."""
    ready_ns: int
    """From when on the chunk is in force: its start on the fast clock, else its publication."""


def measured(result: TickResult) -> int:
    """As long as it took here."""
    return round(result.timing.inference_ms * 1e6)


def constant(latency_ms: float) -> Latency:
    """As long as another machine is known to take, ms."""
    latency_ns = round(latency_ms * 1e6)
    return lambda result: latency_ns


class Drive:
    """Feeds ``pipeline``, which must have been reset.

    ``latency`` None is the fast clock. ``every`` K judges each K-th pair of the fast clock; the
    others are looked at and left. ``follow_prompts``: those of the recording are used;
    ``prompted`` False: what the pipeline still has is of another recording. ``counts``: pairs,
    ticks, skipped pairs, refused and failed ones by reason, late ones, prompts refused.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        latency: Latency | None = None,
        every: int = 1,
        follow_prompts: bool = True,
        prompted: bool = True,
    ) -> None:
        self._pipeline = pipeline
        self._latency = latency
        self._every = every
        self._follow = follow_prompts
        self._prompted = prompted
        self._pace = Pace(pipeline.settings.max_rate, 0.0)
        self._begin_ns = 0
        self._free_ns = 0
        self._due_ns: int | None = None
        self._pairs = 0
        self.counts = Counters()
        self.first_refusal = ''
        """What the first refused or failed pair was refused for, in words."""

    def run(self, events: Iterable[Event]) -> Iterator[tuple[Event | None, Tick | None]]:
        """Every event with the tick that came due by it, if one did; at the end a last tick."""
        for event in events:
            yield event, self.feed(event)
        yield None, self.finish()

    def feed(self, event: Event) -> Tick | None:
        """Take one event in; the tick that begins before it or with it."""
        self._begin_ns = self._begin_ns or event.time_ns
        begun = self._due_ns is not None and self._due_ns < event.time_ns
        tick = self._tick() if begun else None
        self._offer(event)
        if event.kind == 'camera' and self._due_ns is None and self._pipeline.frames.wait_new(0.0):
            self._due_ns = max(self._free_ns, event.time_ns)
            if self._due_ns == event.time_ns and tick is None:
                return self._tick()
        return tick

    def finish(self) -> Tick | None:
        """The tick that still waits at the end of the recording."""
        return self._tick() if self._due_ns is not None else None

    def _offer(self, event: Event) -> None:
        pipeline = self._pipeline
        if event.kind == 'camera':
            if event.name not in pipeline.policy.views:
                return
            try:
                frame = event.payload
            except BadInput as error:
                pipeline.frames.reject(event.name, str(error))
            else:
                pipeline.offer_image(event.name, frame)
        elif event.kind == 'joints':
            try:
                sample = event.payload
            except BadInput as error:
                pipeline.joints.reject(str(error))
            else:
                pipeline.offer_joints(sample)
        elif event.kind == 'prompt' and self._follow:
            try:
                pipeline.set_prompt(event.payload)
                self._prompted = True
            except BadInput as error:
                self._count('prompt_refused', str(error))

    def _tick(self) -> Tick | None:
        assert self._due_ns is not None
        now_ns, self._due_ns = self._due_ns, None
        pipeline = self._pipeline
        index, self._pairs = self._pairs, self._pairs + 1
        self.counts.add('pairs')
        if self._latency is None and index % self._every:
            pipeline.frames.take()
            self.counts.add('skipped')
            return None
        prompt = pipeline.prompt
        frames = {view: pipeline.frames.newest(view) for view in pipeline.policy.views}
        result = self._attempt(now_ns)
        took_ns = self._latency(result) if self._latency and result else 0
        self._pause(now_ns + took_ns)
        if result is None:
            return None
        self.counts.add('ticks')
        ready_ns = now_ns + took_ns if self._latency else result.chunk.start_ns
        if self._latency:
            result = self._timed(result, took_ns)
        used = {view: frame for view, frame in frames.items() if frame is not None}
        return Tick(index, result, used, prompt, now_ns, ready_ns)

    def _timed(self, result: TickResult, took_ns: int) -> TickResult:
        timing = replace(result.timing, inference_ms=took_ns / 1e6)
        chunk = result.chunk
        if timing.inference_ms > timing.deadline_ms:
            self.counts.add('late')
            chunk = replace(chunk, flags=chunk.flags | ChunkFlag.LATE)
        return TickResult(chunk, timing)

    def _attempt(self, now_ns: int) -> TickResult | None:
        """As `InferenceThread` does it: refused, failed, or a chunk."""
        pipeline = self._pipeline
        ready = pipeline.readiness(now_ns) if self._prompted else _NO_PROMPT
        if not ready.ok:
            pipeline.frames.take()
            self._count(f'refused_{ready.reason.name}', ready.text)
            return None
        try:
            return pipeline.tick(now_ns)
        except BadInput as error:
            self._count(f'failed_{reason_of(error).name}', str(error))
            return None

    def _pause(self, end_ns: int) -> None:
        """When the next tick may begin. Without a latency there is no rate to keep."""
        if self._latency is None:
            return
        wait = max(0.0, self._pace.after_tick((end_ns - self._begin_ns) / NS))
        self._free_ns = end_ns + round(wait * NS)

    def _count(self, name: str, text: str) -> None:
        self.counts.add(name)
        self.first_refusal = self.first_refusal or f'{name}: {text}'
