"""What runs the stages for one observation: on the CPU here, on a GPU in gpu_runner.py.

A runner is chosen once, when the engines are loaded; `Pi05Policy.infer` never asks which it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np

from vla_trt_ros.datatypes import CameraFrame, Float32Array, StageTimes
from vla_trt_ros.policies.pi05.chains import Engines
from vla_trt_ros.policies.pi05.inputs import ImageInput, write_prompt
from vla_trt_ros.preprocess.tokenize import Prompt


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run made and took; fields as in `datatypes.PolicyResult`.

    ``actions`` float32 [H, A] are normalised, and valid until the next `Runner.submit`.
    """

    actions: Float32Array
    times: StageTimes
    uploads: int = 0
    upload_bytes: int = 0
    device_memory_mib: float = 0.0


class Running(Protocol):
    """A run that may still be under way."""

    def finish(self) -> Ran:
        """Wait for it. Once; its place is free then. BackendError where a stage failed."""
        ...


class Runner(Protocol):
    """All stages, bound to their inputs."""

    transport: str
    """As `Policy.transport`."""
    places: int
    """As `Policy.places`."""

    def prepare(self, view: str, frame: CameraFrame) -> CameraFrame:
        """As `Policy.prepare_frame`."""
        ...

    def submit(
        self,
        frames: Mapping[str, CameraFrame],
        prompt: Prompt,
        num_steps: int,
        noise: Float32Array,
    ) -> Running:
        """Begin one chunk. ``frames`` hold one view at least; ``num_steps`` is one that there is;
        ``noise`` float32 [H, A] is copied.

        BadImage for a frame that cannot be used, BackendError where a stage fails or no place is
        free; then nothing is under way.
        """
        ...

    def wait_turn(self) -> None:
        """As `Policy.wait_turn`."""
        ...

    def warm_up(self) -> None:
        """Run everything once, on black images."""
        ...


@dataclass(frozen=True, slots=True)
class Finished:
    """A `Running` that is done."""

    ran: Ran

    def finish(self) -> Ran:
        """What it made."""
        return self.ran


class HostRunner:
    """Stage after stage, each waited for; what is between them lies in the host's memory."""

    transport = 'host'
    places = 1

    def __init__(self, views: tuple[str, ...], engines: Engines) -> None:
        self._engines = engines
        self._images = ImageInput(views, engines.pixels, compact=engines.compacts)

    def prepare(self, view: str, frame: CameraFrame) -> CameraFrame:
        """``frame`` itself: it is decoded when it is used."""
        del view
        return frame

    def submit(
        self,
        frames: Mapping[str, CameraFrame],
        prompt: Prompt,
        num_steps: int,
        noise: Float32Array,
    ) -> Finished:
        """One chunk (`Runner`), done on return."""
        engines = self._engines
        chain = engines.chains[prompt.bucket]
        t0 = perf_counter()
        np.copyto(engines.noise[0], noise)
        there = self._images.write(frames)
        write_prompt(prompt, there, chain.tokens, chain.mask)
        t1 = perf_counter()
        engines.vision.enqueue()
        t2 = perf_counter()
        chain.prefix.enqueue()
        t3 = perf_counter()
        chain.denoise[num_steps].enqueue()
        t4 = perf_counter()
        times = StageTimes(
            preprocess_ms=(t1 - t0) * 1e3,
            vision_ms=(t2 - t1) * 1e3,
            prefix_ms=(t3 - t2) * 1e3,
            denoise_ms=(t4 - t3) * 1e3,
        )
        return Finished(Ran(engines.actions[0], times))

    def wait_turn(self) -> None:
        """At once: nothing goes on after `submit`."""

    def warm_up(self) -> None:
        """Run every engine once."""
        engines = self._engines
        engines.pixels.fill(-1.0)
        engines.noise.fill(0.0)
        engines.vision.enqueue()
        for chain in engines.chains.values():
            chain.tokens.fill(0)
            chain.mask.fill(True)
            chain.prefix.enqueue()
            for engine in chain.denoise.values():
                engine.enqueue()
