"""All stages on a GPU: one kernel for the pixels, one CUDA graph, one wait.

Everything is captured before the first observation: a graph for each number of views, prompt
bucket and step count, or two where chunks overlap (overlap.py). A tick allocates nothing; frames
were copied when they arrived.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from time import monotonic, perf_counter

import numpy as np

from vla_trt_ros.datatypes import CameraFrame, Float32Array, StageTimes
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu.cuda import Event, Stream, is_integrated, memory, traffic
from vla_trt_ros.gpu.mirror import mirror_of
from vla_trt_ros.policies.pi05.chains import Engines, GpuChain
from vla_trt_ros.policies.pi05.gpu_inputs import GpuImageInput
from vla_trt_ros.policies.pi05.inputs import write_prompt
from vla_trt_ros.policies.pi05.overlap import capture_overlapped
from vla_trt_ros.policies.pi05.runner import Ran
from vla_trt_ros.preprocess.cuda.frames import Launcher
from vla_trt_ros.preprocess.cuda.images import ImageSpec
from vla_trt_ros.preprocess.tokenize import Prompt

_MEMORY_EVERY = 1.0  # seconds: asking takes longer than a tick may wait
_TELL_EVERY = 2.0  # seconds

_log = logging.getLogger(__name__)


class GpuRunner:
    """`runner.Runner` where `Engines.on_gpu`. ``stack`` closes the graphs.

    ``kernel`` is images.cu, compiled for this GPU unless given. BackendError where the GPU has no
    room for what is captured.
    """

    def __init__(
        self,
        views: tuple[str, ...],
        engines: Engines,
        stack: ExitStack,
        kernel: Launcher | None = None,
    ) -> None:
        size = engines.pixels.shape[2]
        self.transport = 'mapped' if is_integrated() else 'pinned'
        self._stream = Stream(urgency=1)  # before what others do on this GPU beside it
        self._images = GpuImageInput(
            views,
            ImageSpec(len(views), size, size),
            mirror_of(engines.pixels).address,
            kernel,
            compact=engines.compacts,
        )
        self._closed = False
        progress = _Progress()
        if engines.beside is None:
            self._turns: tuple[Turn, ...] = (Turn(engines),)
            engines.capture(stack, self._stream, report=progress)
        else:
            self._turns = Turn(engines), Turn(engines.beside)
            both = engines, engines.beside
            capture_overlapped(both, stack, self._stream, Stream(urgency=2), progress)
        self._free = deque(self._turns)
        self.places = len(self._turns)
        stack.callback(self._close)
        self._memory_mib = _used_mib()
        self._memory_due = monotonic() + _MEMORY_EVERY

    def prepare(self, view: str, frame: CameraFrame) -> CameraFrame:
        """``frame`` with its copy to the GPU under way."""
        ready = self._images.upload(view, frame)
        if monotonic() > self._memory_due:
            self._memory_mib = _used_mib()
            self._memory_due = monotonic() + _MEMORY_EVERY
        return ready

    def submit(
        self,
        frames: Mapping[str, CameraFrame],
        prompt: Prompt,
        num_steps: int,
        noise: Float32Array,
    ) -> Launched:
        """Queue one chunk (`runner.Runner`)."""
        if self._closed:
            raise BackendError('the policy is closed: load it again.')
        try:
            turn = self._free.popleft()
        except IndexError:
            raise BackendError(
                f'{self.places} of {self.places} chunks are in the making: take a result first.'
            ) from None
        try:
            return self._launch(turn, frames, prompt, num_steps, noise)
        except BaseException:
            self._free.append(turn)
            raise

    def _launch(
        self,
        turn: Turn,
        frames: Mapping[str, CameraFrame],
        prompt: Prompt,
        num_steps: int,
        noise: Float32Array,
    ) -> Launched:
        t0 = perf_counter()
        stream = self._stream.handle
        turn.begin.record(stream)
        images = self._images.write(frames, stream)
        turn.written.record(stream)
        chain = turn.engines.chain(sum(images.there), prompt.bucket, num_steps)
        write_prompt(prompt, images.there, chain.tokens, chain.mask)
        np.copyto(chain.noise, noise)
        before = traffic.uploads, traffic.upload_bytes
        t1 = perf_counter()
        chain.launch()
        turn.chain = chain
        return Launched(
            turn,
            chain,
            self._free,
            (t1 - t0) * 1e3,
            images.uploads + traffic.uploads - before[0],
            images.upload_bytes + traffic.upload_bytes - before[1],
            self._memory_mib,
        )

    def wait_turn(self) -> None:
        """Until the stream that chunks begin on is free."""
        self._stream.wait()

    def warm_up(self) -> None:
        """Launch every graph once: the first launch puts it on the GPU."""
        self._images.write({}, self._stream.handle)
        for turn in self._turns:
            turn.engines.noise.fill(0.0)
            places = turn.engines.pixels.shape[0]
            for (views, bucket, _), chain in turn.engines.captured.items():
                longest = Prompt((0,) * bucket, bucket)
                there = [place < views for place in range(places)]
                write_prompt(longest, there, chain.tokens, chain.mask)
                chain.launch()
                chain.wait()

    def _close(self) -> None:
        """Before the graphs go: what is in the making comes to its end."""
        self._closed = True
        for turn in self._turns:
            if turn.chain is not None:
                with contextlib.suppress(BackendError):  # its result tells of it
                    turn.chain.wait()


class Turn:
    """Inputs and outputs of one chunk in the making; when its pixels were begun and written."""

    def __init__(self, engines: Engines) -> None:
        self.engines = engines
        self.begin, self.written = Event(), Event()
        self.chain: GpuChain | None = None
        """What runs, while it does."""


class Launched:
    """`runner.Running` on a GPU; ``turn`` goes back into ``free`` when it is finished."""

    def __init__(
        self,
        turn: Turn,
        chain: GpuChain,
        free: deque[Turn],
        preprocess_ms: float,
        uploads: int,
        upload_bytes: int,
        memory_mib: float,
    ) -> None:
        self._turn: Turn | None = turn
        self._chain, self._free = chain, free
        self._preprocess_ms = preprocess_ms
        self._counted = uploads, upload_bytes, memory_mib

    def finish(self) -> Ran:
        """Wait, and read actions and times."""
        turn, self._turn = self._turn, None
        if turn is None:
            raise BackendError('this result was taken before: it is there once.')
        try:
            self._chain.wait()
            return Ran(self._chain.actions.copy(), self._times(turn), *self._counted)
        finally:
            turn.chain = None
            self._free.append(turn)

    def _times(self, turn: Turn) -> StageTimes:
        ms = self._chain.stage_ms()
        return StageTimes(
            preprocess_ms=self._preprocess_ms,
            upload_ms=turn.written.since(turn.begin, wait=False) + ms['upload'],
            vision_ms=ms['vision'],
            prefix_ms=ms['prefix'],
            denoise_ms=ms['denoise'],
            download_ms=ms['download'],
        )


class _Progress:
    """Tells the log how many graphs are captured, every few seconds and at the end."""

    def __init__(self) -> None:
        self._began = self._told = monotonic()

    def __call__(self, done: int, count: int) -> None:
        now = monotonic()
        if done == count or now - self._told > _TELL_EVERY:
            self._told = now
            _log.info('%d of %d CUDA graphs captured, %.1f s', done, count, now - self._began)


def _used_mib() -> float:
    free, total = memory()
    return (total - free) / (1 << 20)
