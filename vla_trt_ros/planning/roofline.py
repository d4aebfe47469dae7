"""Floors: the time that a stage cannot beat, the larger of FLOP over peak and bytes over
bandwidth. Stages add up. Launches, barriers and cache misses are not counted, so a floor is a
bound on paper and no prediction; with measured shares of it, it becomes one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vla_trt_ros.config import PlatformConfig, Precision
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.planning.devices import Device
from vla_trt_ros.planning.efficiency import Efficiency
from vla_trt_ros.planning.work import Stage, StageWork, network_work
from vla_trt_ros.policies.pi05.spec import (
    Pi05Config,
    StageSpec,
    denoise_spec,
    prefix_spec,
    vision_spec,
)

WEIGHT_BYTES: dict[Precision, float] = {
    'fp32': 4.0,
    'fp16': 2.0,
    'bf16': 2.0,
    'fp8': 1.0,
    'int8': 1.0,
    'int4': 0.5 + 2 / 128,  # a half-precision scale for 128 weights
    'nvfp4': 0.5 + 1 / 16,  # an fp8 scale for 16 weights
}
"""Bytes of a stored weight with its share of the block scales."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage on one device. Bytes and FLOP are of one run, milliseconds of all ``runs``."""

    stage: Stage
    precision: Precision
    runs: int
    flop: int
    read_bytes: int
    """Weights, and keys and values written or read."""
    engine_bytes: int
    """All that the engine holds: weights with block scales, what is never quantised, tables."""
    compute_ms: float
    memory_ms: float
    predicted_ms: float | None = None
    """Floor over the measured share, where one is known."""

    @property
    def floor_ms(self) -> float:
        """The larger of both."""
        return max(self.compute_ms, self.memory_ms)

    @property
    def bound(self) -> Literal['compute', 'memory']:
        """What the floor is made of."""
        return 'compute' if self.compute_ms > self.memory_ms else 'memory'


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the device for one prompt bucket and one step count."""

    weights: int
    """Of all engines, embeddings included."""
    embeddings: int
    """Of the token embeddings alone, a part of ``weights``."""
    kv_cache: int
    activations: int
    """Estimate: the widest layer of any stage, since stages run in turn, plus their inputs and
    outputs. A builder may take more for its tactics.
    """

    @property
    def total(self) -> int:
        """Of all three."""
        return self.weights + self.kv_cache + self.activations


@dataclass(frozen=True, slots=True)
class Plan:
    """A network on a device, for one prompt length and one step count."""

    platform: str
    device: Device
    network: str
    views: int
    prompt_tokens: int
    prompt_bucket: int
    prefix_tokens: int
    horizon: int
    steps: int
    stages: tuple[StagePlan, ...]
    memory: Memory
    efficiency: Efficiency | None = None
    """The shares that predictions are made with."""

    @property
    def floor_ms(self) -> float:
        """Sum over the stages."""
        return sum(s.floor_ms for s in self.stages)

    @property
    def predicted_ms(self) -> float | None:
        """Sum over the stages, where shares are known."""
        known = [s.predicted_ms for s in self.stages if s.predicted_ms is not None]
        return sum(known) if len(known) == len(self.stages) else None

    @property
    def precision(self) -> str:
        """'fp8', or 'fp16/fp8/bf16' where the stages differ."""
        names = [s.precision for s in self.stages]
        return names[0] if len(set(names)) == 1 else '/'.join(names)


def make_plan(
    config: Pi05Config,
    platform: PlatformConfig,
    device: Device,
    *,
    network: str,
    prompt_tokens: int,
    steps: int,
    efficiency: Efficiency | None = None,
) -> Plan:
    """Floors and memory of ``config`` with the precisions of ``platform``.

    The prompt runs in the shortest bucket that holds it. ConfigError for a prompt that is too
    long, a step count below 1, or a precision whose peak is not known.
    """
    if not 1 <= prompt_tokens <= config.max_prompt_tokens:
        raise ConfigError(
            f'{prompt_tokens} prompt tokens: {network} takes 1 to {config.max_prompt_tokens}.'
        )
    if steps < 1:
        raise ConfigError(f'{steps} steps: one at least.')
    bucket = next(b for b in config.prompt_buckets if b >= prompt_tokens)
    works = network_work(config, bucket, steps)
    stages = tuple(
        _stage_plan(work, platform.stage(work.stage).precision, device, efficiency)
        for work in works
    )
    return Plan(
        platform=platform.name,
        device=device,
        network=network,
        views=len(config.views),
        prompt_tokens=prompt_tokens,
        prompt_bucket=bucket,
        prefix_tokens=config.image_tokens + bucket,
        horizon=config.horizon,
        steps=steps,
        stages=stages,
        memory=_memory(config, bucket, works, stages),
        efficiency=efficiency,
    )


def _stage_plan(
    work: StageWork, precision: Precision, device: Device, efficiency: Efficiency | None
) -> StagePlan:
    wide = _activation_bytes(precision)
    weights = round(work.weights * WEIGHT_BYTES[precision])
    read = weights + work.kv_cache * wide
    plan = StagePlan(
        stage=work.stage,
        precision=precision,
        runs=work.runs,
        flop=work.flop,
        read_bytes=read,
        engine_bytes=weights + work.half_weights * wide + work.table * 4,
        compute_ms=1e3 * work.runs * work.flop / device.rate(precision),
        memory_ms=1e3 * work.runs * read / (device.bandwidth * 1e9),
    )
    if efficiency is None:
        return plan
    return replace(plan, predicted_ms=plan.floor_ms / efficiency.share(work.stage))


def _memory(
    config: Pi05Config, bucket: int, works: tuple[StageWork, ...], stages: tuple[StagePlan, ...]
) -> Memory:
    widest, embeddings = 0, 0
    buffers: dict[str, int] = {}
    for work, stage in zip(works, stages, strict=True):
        wide = _activation_bytes(stage.precision)
        widest = max(widest, work.activations * wide)
        if work.stage == 'prefix':
            embeddings = config.vocab_size * config.prefix.width * wide
        spec = _spec(work.stage, config, bucket, 'float32' if wide == 4 else 'float16')
        for t in (*spec.inputs, *spec.outputs):
            # Stages share a buffer by name: what one writes, the next reads in place.
            buffers[t.name] = max(buffers.get(t.name, 0), t.size * np.dtype(t.dtype).itemsize)
    kv_cache = buffers.pop('keys') + buffers.pop('values')
    weights = sum(s.engine_bytes for s in stages)
    return Memory(weights, embeddings, kv_cache, widest + sum(buffers.values()))


def _spec(stage: Stage, config: Pi05Config, bucket: int, activation: str) -> StageSpec:
    if stage == 'vision':
        return vision_spec(config, activation)
    return (prefix_spec if stage == 'prefix' else denoise_spec)(config, bucket, activation)


def _activation_bytes(precision: Precision) -> int:
    """Of what stays unquantised beside weights in ``precision``: activations, keys, values."""
    return 4 if precision == 'fp32' else 2
