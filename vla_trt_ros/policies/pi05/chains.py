"""The engines of a policy as runners use them: stage by stage, or as one CUDA graph a chain."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol, cast

from vla_trt_ros.backends.base import Array, DeviceEngine, Engine
from vla_trt_ros.backends.captured_chain import CapturedChain
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu.cuda import Event, Stream
from vla_trt_ros.gpu.mirror import Mirror, mirror_of


@dataclass(frozen=True, slots=True)
class Chain:
    """What runs for one prompt bucket. ``tokens`` int64 [P] and ``mask`` bool [V * T + P] are
    views of the prefix's input buffers, which the denoise engines share.
    """

    prefix: Engine
    denoise: dict[int, Engine]
    """Step count to engine."""
    tokens: Array
    mask: Array


ChainKey = tuple[int, int, int]
"""Views that are there, prompt bucket, step count."""


class Launchable(Protocol):
    """What is captured of all stages: one graph (`CapturedChain`)."""

    @property
    def captured(self) -> bool:
        """Whether graphs run, and nothing is queued piece by piece."""
        ...

    def launch(self) -> None:
        """Queue it."""
        ...

    def stage_ms(self) -> dict[str, float]:
        """As `GpuChain.stage_ms`."""
        ...


@dataclass(frozen=True, slots=True)
class GpuChain:
    """One launch from inputs to actions. Write the page-locked arrays, launch, wait,
    read. ``actions`` stay valid until the next launch of any chain with these arrays.
    """

    captured: Launchable
    last: Stream | Event
    """What has happened when a launch is done."""
    pixels: Array
    """float32 [V, 3, S, S] in [-1, 1]; copied in only if `Engines.capture` was told so."""
    pixels_mirror: Mirror
    """GPU memory of ``pixels``, for a kernel on the launching stream."""
    tokens: Array
    """int64 [P]."""
    mask: Array
    """bool [V * T + P]; with views missing, where `Engines.compacts`: those that are there first,
    then False up to V * T, then the prompt.
    """
    noise: Array
    """float32 [H, A]."""
    actions: Array
    """float32 [H, A], normalised."""

    def launch(self) -> None:
        """Queue it."""
        self.captured.launch()

    def wait(self) -> None:
        """Until the last launch is done. BackendError if it failed, DeviceLost if for good."""
        self.last.wait()

    def stage_ms(self) -> dict[str, float]:
        """Of the last launch, which must be done: upload, vision, prefix, denoise, download."""
        return self.captured.stage_ms()


@dataclass(frozen=True, slots=True)
class Engines:
    """Every engine of a policy, ready to run."""

    vision: Engine
    chains: dict[int, Chain]
    """Prompt bucket to chain."""
    pixels: Array
    noise: Array
    actions: Array
    on_gpu: bool = False
    """Every stage runs on a GPU: `capture` gives chains."""
    compacts: bool = False
    """Missing views are left out by some stage: views that are there come first."""
    captured: dict[ChainKey, GpuChain] = field(default_factory=dict)
    beside: Engines | None = None
    """The stages once more for every second chunk, if chunks overlap. Pixels are the same."""

    def capture(
        self,
        stack: ExitStack,
        stream: Stream,
        *,
        pixels_on_gpu: bool = True,
        report: Callable[[int, int], None] = lambda done, count: None,
    ) -> None:
        """Run and capture every chain on ``stream``; ``stack`` closes them. With
        ``pixels_on_gpu`` the caller writes `GpuChain.pixels_mirror`, else pixels are copied in.

        ``report`` hears how many of how many are done. BackendError if one does not run.
        """
        keys = self.keys()
        for i, key in enumerate(keys):
            report(i, len(keys))
            captured = CapturedChain(
                self.stages(key), on_gpu={'pixels'} if pixels_on_gpu else (), stream=stream
            )
            self.add(key, stack.enter_context(captured), stream)
        report(len(keys), len(keys))

    def keys(self) -> list[ChainKey]:
        """Every chain there is to capture, the largest first."""
        views = self.pixels.shape[0]
        numbers = range(views, 0, -1) if self.compacts else (views,)
        return [
            (v, bucket, steps)
            for bucket, chain in sorted(self.chains.items(), reverse=True)
            for v in numbers
            for steps in chain.denoise
        ]

    def stages(self, key: ChainKey) -> list[DeviceEngine]:
        """Vision, prefix and denoise of one chain."""
        views, bucket, steps = key
        chain = self.chains[bucket]
        stages = cast(tuple[DeviceEngine, ...], (self.vision, chain.prefix, chain.denoise[steps]))
        return [engine.for_views(views) for engine in stages]

    def add(self, key: ChainKey, captured: Launchable, last: Stream | Event) -> None:
        """Take what was captured of ``stages(key)``; it is done when ``last`` is."""
        chain = self.chains[key[1]]
        self.captured[key] = GpuChain(
            captured,
            last,
            self.pixels,
            mirror_of(self.pixels),
            chain.tokens,
            chain.mask,
            self.noise[0],
            self.actions[0],
        )

    def chain(self, views: int, bucket: int, num_steps: int) -> GpuChain:
        """What `capture` made. BackendError for a step count or bucket that was not captured."""
        key = (views if self.compacts else self.pixels.shape[0], bucket, num_steps)
        try:
            return self.captured[key]
        except KeyError:
            have = ', '.join(f'{v} views {b} tokens {n} steps' for v, b, n in self.captured)
            raise BackendError(
                f'no graph was captured for {views} views, {bucket} prompt tokens and {num_steps} '
                f'steps; there are: {have or "none"}. Export the bundle with these --buckets and '
                '--steps.'
            ) from None
