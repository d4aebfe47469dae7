"""The blocks that Pi0.5 is made of. Parameter names are those of the published checkpoints."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROPE_BASE = 10_000.0
RMS_EPS = 1e-6
LAYER_NORM_EPS = 1e-6


def rms_normalize(x: Tensor) -> Tensor:
    """``x`` over its root mean square along the last axis, in float32."""
    wide = x.float()
    return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + RMS_EPS)


class RMSNorm(nn.Module):
    """Gemma's: the weight is stored as its distance from 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same shape and dtype; float32 inside."""
        return (rms_normalize(x) * (1.0 + self.weight)).to(x.dtype)


class AdaRMSNorm(nn.Module):
    """RMSNorm whose scale and shift, and a gate for the branch that follows, come from a
    condition. It has no weight of its own.
    """

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(condition_width, 3 * width)

    def modulation(self, condition: Tensor) -> Tensor:
        """Condition [..., C] -> scale, shift and gate side by side, [..., 3 * width]."""
        out: Tensor = self.dense(condition)
        return out

    @staticmethod
    def apply_to(x: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor]:
        """Modulated ``x`` and the gate, both in x's dtype.

        ``modulation`` is float32 and broadcasts against x's leading axes.
        """
        scale, shift, gate = modulation.chunk(3, dim=-1)
        return (rms_normalize(x) * (1.0 + scale) + shift).to(x.dtype), gate.to(x.dtype)


class GatedMLP(nn.Module):
    """Gemma's GeGLU: down(gelu(gate(x)) * up(x))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same shape."""
        out: Tensor = self.down_proj(
            F.gelu(self.gate_proj(x), approximate='tanh') * self.up_proj(x)
        )
        return out


class GroupedAttention(nn.Module):
    """Projections of grouped-query attention with rotary embedding.

    No mask here depends on the query: every token attends to every token that counts. So the
    query heads that share a key-value head are laid out as further rows of one attention, and
    keys and values are never repeated.
    """

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.q_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)

    def keys_values(self, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, width] -> rotated keys and values, [B, KV, S, D] each."""
        keys = self._split(self.k_proj(x), self.kv_heads)
        values = self._split(self.v_proj(x), self.kv_heads)
        return rotate(keys, rope), values

    def attend(
        self, x: Tensor, rope: Tensor, keys: Tensor, values: Tensor, bias: Tensor
    ) -> Tensor:
        """Attention of ``x`` [B, N, width] to ``keys`` and ``values`` [B, KV, S, D].

        ``bias`` [B, 1, 1, S] is added to the logits. Returns [B, N, width].
        """
        batch, tokens, _ = x.shape
        queries = rotate(self._split(self.q_proj(x), self.heads), rope)
        rows = queries.reshape(batch, self.kv_heads, -1, self.head_dim)
        out = F.scaled_dot_product_attention(rows, keys, values, attn_mask=bias)
        out = out.reshape(batch, self.heads, tokens, self.head_dim).transpose(1, 2)
        projected: Tensor = self.o_proj(out.reshape(batch, tokens, -1))
        return projected

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.reshape(*x.shape[:-1], heads, self.head_dim).transpose(1, 2)


def rope_table(positions: Tensor, head_dim: int) -> Tensor:
    """Cosines and sines of ``positions`` [B, S], stacked: float32 [2, B, 1, S, D / 2].

    Float32 whatever the model's dtype: half precision cannot tell the higher positions apart.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim
    angles = positions.float()[:, None, :, None] * ROPE_BASE**-exponents
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotary embedding of [B, heads, S, D]: entry i is paired with entry i + D / 2."""
    cos, sin = rope[0], rope[1]
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Boolean [B, S], True where a key counts -> additive [B, 1, 1, S] in ``dtype``.

    The minimum is finite, so that a row without any key gives an average and not NaN.
    """
    lowest = torch.finfo(dtype).min
    return torch.where(mask, 0.0, lowest).to(dtype)[:, None, None, :]


def time_embedding(time: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of ``time`` [N]: [N, width], periods from 4e-3 to 4 in equal ratios.

    Float64 inside: a time in float32 is off by up to 6e-5 of the shortest period's angle.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    periods = 4e-3 * (4.0 / 4e-3) ** fraction
    angles = time.double()[:, None] * (2.0 * math.pi / periods)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()
