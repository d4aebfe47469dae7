"""FP8 weights, and the static scales of FP8 inputs from observations."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.policies.pi05.cuda.fold import FP8, FP8_MAX, FastWeights, Linear
from vla_trt_ros.policies.pi05.cuda.operations import Ops, Stream

_OUTPUT = ' output'
"""Of the prefix's gate and up products, which would not fit the L2 cache in bfloat16."""


@dataclass(slots=True)
class Ranges:
    """Largest magnitude that each product's input reached, by the product's name."""

    largest: dict[str, float] = field(default_factory=dict)

    def see(self, into: Linear, a: Tensor) -> None:
        """Takes in an input ``a`` of ``into``; synchronises with the device."""
        self.see_as(into.name, a)

    def see_as(self, name: str, a: Tensor) -> None:
        """Takes in ``a`` under a name of its own."""
        self.largest[name] = max(float(a.abs().max()), self.largest.get(name, 0.0))


class RangeOps:
    """Another `Ops` whose products report their inputs to ``ranges``."""

    def __init__(self, ops: Ops, ranges: Ranges) -> None:
        self._ops, self._ranges = ops, ranges

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def linear(self, a: Tensor, into: Linear) -> Tensor:
        self._ranges.see(into, a)
        return self._ops.linear(a, into)

    def gelu_product(self, a: Tensor, product: Linear, into: Linear) -> Tensor:
        self._ranges.see(product, a)
        return self._ops.gelu_product(a, product, into)

    def geglu_product(self, a: Tensor, product: Linear, into: Linear) -> Tensor:
        self._ranges.see(product, a)
        self._ranges.see_as(product.name + _OUTPUT, self._ops.linear(a, product))
        return self._ops.geglu_product(a, product, into)

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
    """Scales of 1, which the decode kernels multiply by, for what is not quantised."""

    def change(linear: Linear) -> Linear:
        if linear.quantized or not linear.name.startswith('expert.'):
            return linear
        ones = torch.ones(linear.weight.shape[0], device=linear.weight.device)
        return replace(linear, scale=ones)

    return weights.replaced(change)


_KEPT = re.compile(r'vision\.\d+\.(qkv|out)|projector')
"""Products that lose most accuracy for the least time: measured, docs/performance.md."""


def quantize(weights: FastWeights, ranges: Ranges, kept: re.Pattern[str] = _KEPT) -> FastWeights:
    """Products in FP8 but those whose names match ``kept``: a scale per output column in the
    expert, one per weight elsewhere.

    In the expert, an input's quantum is multiplied into the column scales.
    """

    def change(linear: Linear) -> Linear:
        if kept.fullmatch(linear.name):
            return linear
        if linear.name not in ranges.largest:
            raise ConfigError(f'{linear.name} was not seen in calibration; run every stage once.')
        act = max(ranges.largest[linear.name], 1e-12) / FP8_MAX
        expert = linear.name.startswith('expert.')
        wide = linear.weight.float()
        top = wide.abs().amax(1) if expert else wide.abs().amax()
        scale = top.clamp(min=1e-12) / FP8_MAX
        stored = wide / (scale[:, None] if expert else scale)
        device = linear.weight.device
        result = ranges.largest.get(linear.name + _OUTPUT, 0.0) / FP8_MAX
        if result:
            scale = scale / result
        return Linear(
            linear.name,
            stored.clamp(-FP8_MAX, FP8_MAX).to(FP8).contiguous(),
            linear.bias,
            scale * act if expert else scale,
            act,
            torch.tensor(1.0 if expert else act, dtype=torch.float32, device=device),
            result,
        )

    return weights.replaced(change)
