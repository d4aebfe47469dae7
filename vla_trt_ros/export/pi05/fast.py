"""The weights of a network -> the file that the cuda_graph backend loads, in a bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vla_trt_ros.bundle import EngineEntry, open_bundle
from vla_trt_ros.config import Precision
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.bundle_writer import extend_bundle
from vla_trt_ros.export.frames import FEWEST, Frames
from vla_trt_ros.export.graphs import network_inputs
from vla_trt_ros.export.pi05.parameters import ParameterSource, skeleton
from vla_trt_ros.policies.pi05.cuda.buffers import make_buffers
from vla_trt_ros.policies.pi05.cuda.fast_file import (
    PRECISIONS,
    file_name,
    named_tensors,
    write_fast_file,
)
from vla_trt_ros.policies.pi05.cuda.fold import FastWeights, fold
from vla_trt_ros.policies.pi05.cuda.operations import TorchOps
from vla_trt_ros.policies.pi05.cuda.quantize import RangeOps, Ranges, quantize
from vla_trt_ros.policies.pi05.cuda.stages import Stages
from vla_trt_ros.policies.pi05.cuda.tables import StepTables, step_tables
from vla_trt_ros.policies.pi05.spec import (
    Pi05Config,
    StageSpec,
    denoise_spec,
    prefix_spec,
    vision_spec,
)

Progress = Callable[[Iterable[int], str], Iterator[int]]
"""Like cli.progress.bar."""


def _silent(items: Iterable[int], label: str) -> Iterator[int]:
    del label
    yield from items


@dataclass(frozen=True, slots=True)
class _Folded:
    weights: FastWeights
    tables: dict[int, StepTables]


def add_fast(
    path: Path,
    source: ParameterSource,
    precisions: Sequence[Precision],
    frames: Frames | None = None,
    *,
    device: str = 'cpu',
    progress: Progress = _silent,
) -> None:
    """Write ``source`` in each of ``precisions`` (fp32, bf16, fp8) into the bundle ``path``, and
    enter an engine for each stage, prompt bucket and step count.

    fp8 takes its scales from part A of ``frames``, which run on ``device`` in plain PyTorch.
    ConfigError for another precision, or for fp8 without enough frames.
    """
    check_fast(precisions)
    if 'fp8' in precisions and frames is None:
        raise ConfigError('fp8 for cuda_graph needs frames of the robot: give --calibrate.')
    engines: list[EngineEntry] = []
    with torch.no_grad():
        for dtype in dict.fromkeys(PRECISIONS[p] for p in precisions):
            folded = _fold(source, dtype, device, progress)
            for precision in (p for p in precisions if PRECISIONS[p] == dtype):
                engines += _write(path, folded, precision, frames, device, progress)
    extend_bundle(path, engines=engines)


def check_fast(precisions: Sequence[str]) -> None:
    """ConfigError unless each of ``precisions`` is one that cuda_graph computes."""
    for precision in precisions:
        if precision not in PRECISIONS:
            raise ConfigError(
                f'cuda_graph does not compute {precision}; choose of {", ".join(PRECISIONS)}.'
            )


def fast_engines(config: Pi05Config, precision: Precision) -> list[EngineEntry]:
    """An entry for each stage, prompt bucket and step count; all name one file."""
    activation = str(PRECISIONS[precision]).removeprefix('torch.')

    def entry(
        stage: str, spec: StageSpec, bucket: int | None = None, steps: int | None = None
    ) -> EngineEntry:
        return EngineEntry(
            stage=stage,  # type: ignore[arg-type]
            backend='cuda_graph',
            precision=precision,
            file=file_name(precision),
            inputs=spec.inputs,
            outputs=spec.outputs,
            prompt_bucket=bucket,
            num_steps=steps,
        )

    entries = [entry('vision', vision_spec(config, activation))]
    for bucket in config.prompt_buckets:
        entries.append(entry('prefix', prefix_spec(config, bucket, activation), bucket))
        spec = denoise_spec(config, bucket, activation)
        entries += [entry('denoise', spec, bucket, steps) for steps in config.num_steps]
    return entries


def _fold(source: ParameterSource, dtype: torch.dtype, device: str, progress: Progress) -> _Folded:
    config = source.config
    names = [name for name, _ in skeleton(config, torch.float32).named_parameters()]
    of_time = sum(n.startswith('time_mlp_') or '.dense.' in n for n in names)
    # What depends on time is read again for every number of steps, and one bias twice.
    count = len(names) - of_time + 1 + len(config.num_steps) * (of_time + 1)
    steps = progress(range(count), f'folding, {str(dtype).removeprefix("torch.")}')

    def load(name: str) -> Tensor:
        next(steps, None)
        return source.load(name).to(device)

    weights = fold(config, load, dtype)
    tables = {n: step_tables(weights, load, n) for n in config.num_steps}
    for _ in steps:
        pass
    return _Folded(weights, tables)


def _write(
    path: Path,
    folded: _Folded,
    precision: Precision,
    frames: Frames | None,
    device: str,
    progress: Progress,
) -> list[EngineEntry]:
    weights, origin = folded.weights, ''
    if precision == 'fp8':
        assert frames is not None
        ranges, origin = _ranges(path, folded, frames, device, progress)
        weights = quantize(weights, ranges)
    count = sum(1 for _ in named_tensors(weights, folded.tables))
    aside = path / f'.{file_name(precision)}.new'
    try:
        write_fast_file(
            aside,
            weights,
            folded.tables,
            precision,
            origin,
            progress(range(count), f'writing {precision}'),
        )
        os.replace(aside, path / file_name(precision))
    finally:
        aside.unlink(missing_ok=True)
    return fast_engines(weights.config, precision)


def _ranges(
    path: Path, folded: _Folded, frames: Frames, device: str, progress: Progress
) -> tuple[Ranges, str]:
    """What each product's input reaches over part A of ``frames``, and a word on these."""
    part, _ = frames.split()
    if len(part) < FEWEST:
        raise ConfigError(f'{len(part)} frames are too few to calibrate on; give {2 * FEWEST}.')
    weights, ranges = folded.weights, Ranges()
    config = weights.config
    ops = RangeOps(TorchOps(), ranges)
    held = make_buffers(weights, len(config.views), config.max_prompt_tokens, max(folded.tables))
    inputs = network_inputs(open_bundle(path), part)
    for i in progress(range(len(inputs)), 'calibrating fp8'):
        tensors = inputs[i]
        mask, tokens = tensors['prefix_mask'][0], tensors['tokens']
        there = mask[: config.image_tokens : config.tokens_per_view]
        pixels = torch.from_numpy(tensors['pixels'][there])
        held.pixels[: len(pixels)] = pixels.to(device)
        held.tokens[: tokens.size] = torch.from_numpy(tokens[0]).to(device)
        held.valid.fill_(int(np.count_nonzero(mask)))
        held.latents[0, : config.horizon] = torch.from_numpy(tensors['noise'][0]).to(device)
        stages = Stages(weights, held, ops, len(pixels))
        stages.vision()
        stages.prefix(tokens.size)
        stages.denoise(folded.tables[max(folded.tables)], tokens.size)
    return ranges, f'{len(part)} frames of {frames.origin}'
