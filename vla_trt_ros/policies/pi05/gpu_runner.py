"""All stages on a GPU: one kernel for the pixels, one CUDA graph, one wait.

Everything is captured before the first observation: a graph for each number of views, prompt
bucket and step count. A tick allocates nothing; frames were copied when they arrived.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from time import monotonic, perf_counter

from vla_trt_ros.datatypes import CameraFrame, Float32Array, StageTimes
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu.cuda import Event, Stream, is_integrated, memory, traffic
from vla_trt_ros.gpu.mirror import mirror_of
from vla_trt_ros.policies.pi05.engines import Engines
from vla_trt_ros.policies.pi05.gpu_inputs import GpuImageInput
from vla_trt_ros.policies.pi05.inputs import write_prompt
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
        self._engines = engines
        self._stream = Stream(urgent=True)  # before what others do on this GPU beside it
        self._begin, self._written = Event(), Event()
        self._images = GpuImageInput(
            views,
            ImageSpec(len(views), size, size),
            mirror_of(engines.pixels).address,
            kernel,
            compact=engines.compacts,
        )
        self._closed = False
        progress = _Progress()
        engines.capture(stack, self._stream, report=progress)
        stack.callback(self._close)
        self._memory_mib = _used_mib()
        self._memory_due = monotonic() + _MEMORY_EVERY

    @property
    def noise(self) -> Float32Array:
        """float32 [H, A], page-locked."""
        noise: Float32Array = self._engines.noise[0]
        return noise

    def prepare(self, view: str, frame: CameraFrame) -> CameraFrame:
        """``frame`` with its copy to the GPU under way."""
        ready = self._images.upload(view, frame)
        if monotonic() > self._memory_due:
            self._memory_mib = _used_mib()
            self._memory_due = monotonic() + _MEMORY_EVERY
        return ready

    def run(self, frames: Mapping[str, CameraFrame], prompt: Prompt, num_steps: int) -> Ran:
        """One chunk (`runner.Runner`)."""
        if self._closed:
            raise BackendError('the policy is closed: load it again.')
        t0 = perf_counter()
        stream = self._stream.handle
        self._begin.record(stream)
        images = self._images.write(frames, stream)
        self._written.record(stream)
        chain = self._engines.chain(sum(images.there), prompt.bucket, num_steps)
        write_prompt(prompt, images.there, chain.tokens, chain.mask)
        before = traffic.uploads, traffic.upload_bytes
        t1 = perf_counter()
        chain.launch()
        self._stream.wait()
        ms = chain.stage_ms()
        times = StageTimes(
            preprocess_ms=(t1 - t0) * 1e3,
            upload_ms=self._written.since(self._begin) + ms['upload'],
            vision_ms=ms['vision'],
            prefix_ms=ms['prefix'],
            denoise_ms=ms['denoise'],
            download_ms=ms['download'],
        )
        return Ran(
            chain.actions,
            times,
            images.uploads + traffic.uploads - before[0],
            images.upload_bytes + traffic.upload_bytes - before[1],
            self._memory_mib,
        )

    def warm_up(self) -> None:
        """Launch every graph once: the first launch puts it on the GPU."""
        self.noise.fill(0.0)
        self._images.write({}, self._stream.handle)
        places = self._engines.pixels.shape[0]
        for (views, bucket, _), chain in self._engines.captured.items():
            longest = Prompt((0,) * bucket, bucket)
            there = [place < views for place in range(places)]
            write_prompt(longest, there, chain.tokens, chain.mask)
            chain.launch()
            self._stream.wait()

    def _close(self) -> None:
        self._closed = True


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
