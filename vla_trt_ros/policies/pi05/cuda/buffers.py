"""The fixed-address tensors that the stages read and write; one set serves every graph."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vla_trt_ros.policies.pi05.cuda.fold import FastWeights
from vla_trt_ros.policies.pi05.cuda.tables import rope_tables
from vla_trt_ros.policies.pi05.spec import Pi05Config


def padded_rows(horizon: int) -> int:
    """Rows that the decode kernels compute: the horizon, up to a power of two from 64.

    Hopper's matrix instructions take 64 rows; those beyond the horizon are neither read nor
    written.
    """
    return max(64, 1 << (horizon - 1).bit_length())


_PADDING = 15
"""What another number of views may need more, to fill its prefix up to a multiple of 16."""


def prefix_rows(config: Pi05Config, views: int, bucket: int) -> int:
    """Prefix tokens of a graph, rounded up to the 16 that FP8 products need.

    Tokens beyond the valid ones are computed and never attended to.
    """
    return -(-(views * config.tokens_per_view + bucket) // 16) * 16


@dataclass(frozen=True, slots=True)
class Buffers:
    """Inputs, outputs and what passes between stages, for one number of views."""

    pixels: Tensor
    """float32 [V, 3, S, S] in [-1, 1]. Input."""
    tokens: Tensor
    """int64 [largest padded prompt]. Input; the valid ones first."""
    valid: Tensor
    """int32 [1]: prefix tokens that count, image tokens first. Input."""
    latents: Tensor
    """float32 [steps + 1, rows, A]: row 0 takes the noise, row N holds the actions of N steps."""
    hidden: Tensor
    """[prefix rows, prefix width]: the prefix's residual stream."""
    keys: Tensor
    """[L, most valid tokens + rows, D], rotated. The suffix stands behind the last valid token."""
    values: Tensor
    """[L, most valid tokens + rows, D]."""
    cos: Tensor
    """float32 [positions, D / 2]."""
    sin: Tensor
    """float32 [positions, D / 2]."""

    @property
    def rows(self) -> int:
        """Rows that decode computes."""
        return int(self.latents.shape[1])

    def beside(self) -> Buffers:
        """The same memory, but for what a prefix writes and the steps behind it read: keys,
        values and how many count.
        """
        keys, values = torch.zeros_like(self.keys), torch.zeros_like(self.values)
        return replace(self, keys=keys, values=values, valid=self.valid.clone())


def make_buffers(weights: FastWeights, views: int, bucket: int, max_steps: int) -> Buffers:
    """Buffers for up to ``bucket`` prompt tokens and ``max_steps`` steps, all zero."""
    like = weights.embedding
    return buffers_for(weights.config, views, bucket, max_steps, like.dtype, like.device)


def buffers_for(
    config: Pi05Config,
    views: int,
    bucket: int,
    max_steps: int,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Buffers:
    """As `make_buffers`. One set serves every smaller number of views, bucket and step count."""
    tokens = prefix_rows(config, views, bucket) + _PADDING
    rows = padded_rows(config.horizon)
    # Padding is shorter than the suffix's rows, so that the padded prefix fits too.
    positions = views * config.tokens_per_view + bucket + rows
    cos, sin = rope_tables(config, positions)
    cache = (config.depth, positions, config.prefix.head_dim)

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(*shape, dtype=dtype, device=device)

    return Buffers(
        pixels=zeros(views, 3, config.image_size, config.image_size),
        tokens=zeros(tokens - views * config.tokens_per_view, dtype=torch.int64),
        valid=torch.full(
            (1,), views * config.tokens_per_view + bucket, dtype=torch.int32, device=device
        ),
        latents=zeros(max_steps + 1, rows, config.action_dim),
        hidden=zeros(tokens, config.prefix.width, dtype=dtype),
        keys=zeros(*cache, dtype=dtype),
        values=zeros(*cache, dtype=dtype),
        cos=cos.to(device),
        sin=sin.to(device),
    )
