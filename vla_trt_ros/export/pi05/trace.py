"""Every graph of a network, traced without weights: a bundle's graphs, but for the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vla_trt_ros.export.pi05.parameters import skeleton
from vla_trt_ros.export.pi05.stages import DenoiseStepStage, PrefixStage, VisionStage
from vla_trt_ros.export.to_onnx import trace_stage
from vla_trt_ros.export.unroll import unroll
from vla_trt_ros.export.weightless import Traced
from vla_trt_ros.policies.pi05.spec import (
    Pi05Config,
    StageSpec,
    denoise_spec,
    denoise_step_spec,
    euler_times,
    prefix_spec,
    vision_spec,
)


@dataclass(frozen=True, slots=True)
class TracedGraph:
    """One graph, its weights pending."""

    stage: Literal['vision', 'prefix', 'denoise']
    name: str
    """Of its file, less the ending: 'denoise_32_10'."""
    spec: StageSpec
    traced: Traced
    bucket: int | None = None
    num_steps: int | None = None


def trace_graphs(
    config: Pi05Config,
    compute: torch.dtype,
    table: Callable[[list[float]], NDArray[np.float32]],
    report: Callable[[str], None] = lambda name: None,
) -> Iterator[TracedGraph]:
    """The graphs of a network that computes in ``compute``, stage after stage.

    ``table`` gives the modulation at some times, float32 [times, 2 L + 1, 3 W], the only numbers
    that a graph holds already. ``report`` hears each graph's name before it is made.
    """
    activation = str(compute).removeprefix('torch.')
    model = skeleton(config, compute)
    report('vision')
    spec = vision_spec(config, activation)
    yield TracedGraph('vision', 'vision', spec, trace_stage(VisionStage(model), spec))
    for bucket in config.prompt_buckets:
        name = f'prefix_{bucket}'
        report(name)
        spec = prefix_spec(config, bucket, activation)
        yield TracedGraph('prefix', name, spec, trace_stage(PrefixStage(model), spec), bucket)
    times, rows = time_rows(config)
    values = table(times)
    for bucket in config.prompt_buckets:
        step: Traced | None = None
        spec = denoise_spec(config, bucket, activation)
        for num_steps in config.num_steps:
            name = f'denoise_{bucket}_{num_steps}'
            report(name)
            if step is None:
                one = denoise_step_spec(config, bucket, activation)
                step = trace_stage(DenoiseStepStage(model), one)
            loop = Traced(unroll(step.model, spec, values, rows[num_steps]), step.recipes)
            yield TracedGraph('denoise', name, spec, loop, bucket, num_steps)


def time_rows(config: Pi05Config) -> tuple[list[float], dict[int, tuple[int, ...]]]:
    """Every time that any step count needs, and per step count its rows in that list."""
    times = sorted({t for n in config.num_steps for t in euler_times(n)}, reverse=True)
    return times, {n: tuple(times.index(t) for t in euler_times(n)) for n in config.num_steps}
