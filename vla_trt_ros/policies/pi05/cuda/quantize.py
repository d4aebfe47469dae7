"""FP8 weights, and the static scales of FP8 inputs from observations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.policies.pi05.cuda.fold import FP8, FP8_MAX, FastWeights, Linear
from vla_trt_ros.policies.pi05.cuda.operations import Ops, Stream


@dataclass(slots=True)
class Ranges:
    """Largest magnitude that each product's input reached, by the product's name."""

    largest: dict[str, float] = field(default_factory=dict)

    def see(self, into: Linear, a: Tensor) -> None:
        """Takes in an input ``a`` of ``into``; synchronises with the device."""
        top = float(a.abs().max())
        self.largest[into.name] = max(top, self.largest.get(into.name, 0.0))


class RangeOps:
    """Another `Ops` whose products report their inputs to ``ranges``."""

    def __init__(self, ops: Ops, ranges: Ranges) -> None:
        self._ops, self._ranges = ops, ranges

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def linear(self, a: Tensor, into: Linear) -> Tensor:
        self._ranges.see(into, a)
        return self._ops.linear(a, into)

    def heads(self, stream: Stream, qkv: Linear, *rest: Any) -> Tensor:
        self._ranges.see(qkv, stream.scaled)
        return self._ops.heads(stream, qkv, *rest)

    def gate_up(self, stream: Stream, product: Linear, *rest: Any) -> Tensor:
        self._ranges.see(product, stream.scaled)
        return self._ops.gate_up(stream, product, *rest)

    def add_product(self, stream: Stream, a: Tensor, product: Linear, *rest: Any) -> Stream:
        self._ranges.see(product, a)
        return self._ops.add_product(stream, a, product, *rest)


def with_unit_scales(weights: FastWeights) -> FastWeights:
    """Unquantised weights with the scales of 1 that the decode kernels multiply by."""

    def change(linear: Linear) -> Linear:
        if not linear.name.startswith('expert.'):
            return linear
        ones = torch.ones(linear.weight.shape[0], device=linear.weight.device)
        return replace(linear, scale=ones)

    return weights.replaced(change)


def quantize(weights: FastWeights, ranges: Ranges) -> FastWeights:
    """Every product in FP8: a scale per output column in the expert, one per weight elsewhere.

    In the expert, an input's quantum is multiplied into the column scales.
    """

    def change(linear: Linear) -> Linear:
        if linear.name not in ranges.largest:
            raise ConfigError(f'{linear.name} was not seen in calibration; run every stage once.')
        act = max(ranges.largest[linear.name], 1e-12) / FP8_MAX
        expert = linear.name.startswith('expert.')
        wide = linear.weight.float()
        top = wide.abs().amax(1) if expert else wide.abs().amax()
        scale = top.clamp(min=1e-12) / FP8_MAX
        stored = wide / (scale[:, None] if expert else scale)
        device = linear.weight.device
        return Linear(
            linear.name,
            stored.clamp(-FP8_MAX, FP8_MAX).to(FP8).contiguous(),
            linear.bias,
            scale * act if expert else scale,
            act,
            torch.tensor(1.0 if expert else act, dtype=torch.float32, device=device),
        )

    return weights.replaced(change)
