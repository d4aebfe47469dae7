"""The plain PyTorch network as a baseline to time engines against: same sizes, random weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vla_trt_ros.export.pi05.model import Pi05
from vla_trt_ros.export.pi05.random_weights import random_model
from vla_trt_ros.policies.pi05.spec import Pi05Config, euler_times

Mode = Literal['pytorch', 'compile']


@dataclass(frozen=True, slots=True)
class BaselineTimes:
    """Medians over ``n`` runs of one step count, milliseconds; the stages are in the total."""

    steps: int
    total_ms: float
    p99_ms: float
    vision_ms: float
    prefix_ms: float
    denoise_ms: float
    n: int
    precision: str
    gpu_memory_mib: float


class Baseline:
    """`Pi05` of ``config`` on ``device``: bf16 on a GPU, float32 on a processor.

    ``mode`` 'compile' runs each stage, and a denoise step, through torch.compile; its first run
    compiles and takes minutes at true size.
    """

    def __init__(
        self, config: Pi05Config, *, bucket: int, prompt_tokens: int, device: str, mode: Mode
    ) -> None:
        self._gpu = device != 'cpu'
        self._precision = 'bf16' if self._gpu else 'fp32'
        dtype = torch.bfloat16 if self._gpu else torch.float32
        model = random_model(config, 0, dtype, device)
        self._model = model
        self._embed_images: Callable[[Tensor], Tensor] = model.embed_images
        self._fill = model.fill_kv_cache
        self._step = model.denoise_step
        if mode == 'compile':
            self._embed_images = torch.compile(model.embed_images, dynamic=False)
            self._fill = torch.compile(model.fill_kv_cache, dynamic=False)
            self._step = torch.compile(model.denoise_step, dynamic=False)
        generator = torch.Generator(device).manual_seed(1)
        views, side = len(config.views), config.image_size
        self._pixels = 2 * torch.rand(views, 3, side, side, generator=generator, device=device) - 1
        self._tokens = torch.zeros(1, bucket, dtype=torch.int64, device=device)
        self._tokens[:, :prompt_tokens] = 5
        self._mask = torch.ones(1, config.image_tokens + bucket, dtype=torch.bool, device=device)
        self._mask[:, config.image_tokens + prompt_tokens :] = False
        shape = (1, config.horizon, config.action_dim)
        self._noise = torch.randn(shape, generator=generator, device=device)

    @property
    def model(self) -> Pi05:
        """The network that is timed."""
        return self._model

    def sample(self, steps: int, mark: Callable[[], None] = lambda: None) -> Tensor:
        """`Pi05.sample_actions`, with ``mark`` called at its begin and after each stage."""
        mark()
        image_tokens = self._embed_images(self._pixels)
        mark()
        keys, values = self._fill(image_tokens, self._tokens, self._mask)
        mark()
        times = torch.tensor(euler_times(steps), dtype=torch.float64, device=self._noise.device)
        x, dt = self._noise, -1.0 / steps
        for row in self._model.modulation(times):
            x = x + dt * self._step(x, row, keys, values, self._mask)
        mark()
        return x

    def measure(
        self,
        steps: int,
        n: int,
        warm_up: int = 3,
        progress: Callable[[Iterable[int]], Iterator[int]] = iter,
    ) -> BaselineTimes:
        """Times of ``n`` runs, each waited for: CUDA events on a GPU, perf_counter else."""
        if self._gpu:
            torch.cuda.reset_peak_memory_stats()
        with torch.no_grad():
            for _ in range(warm_up):
                self.sample(steps)
            rows = np.array([self._times(steps) for _ in progress(range(n))])
        vision, prefix, denoise = (float(v) for v in np.median(rows, axis=0))
        total, p99 = np.percentile(rows.sum(axis=1), [50, 99])
        memory = torch.cuda.max_memory_allocated() / 2**20 if self._gpu else 0.0
        return BaselineTimes(
            steps, float(total), float(p99), vision, prefix, denoise, n, self._precision, memory
        )

    def _times(self, steps: int) -> list[float]:
        if not self._gpu:
            marks: list[float] = []
            self.sample(steps, lambda: marks.append(time.perf_counter()))
            return [(b - a) * 1e3 for a, b in pairwise(marks)]
        events: list[torch.cuda.Event] = []

        def mark() -> None:
            events.append(torch.cuda.Event(enable_timing=True))
            events[-1].record()

        torch.cuda.synchronize()
        self.sample(steps, mark)
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in pairwise(events)]


def gpu_is_there() -> bool:
    """Whether this build of torch sees a GPU."""
    return torch.cuda.is_available()
