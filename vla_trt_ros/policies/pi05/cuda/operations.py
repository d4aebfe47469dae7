"""What the stages are made of: a short protocol, and the same in plain PyTorch.

`TorchOps` runs anywhere and says what each fused kernel must compute; triton_ops.py has the fast
ones. A result that feeds a product ``into`` is stored as that product wants its input: FP8 divided
by ``into.act``, or the compute dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vla_trt_ros.policies.pi05.cuda.buffers import Buffers
from vla_trt_ros.policies.pi05.cuda.fold import FP8, FP8_MAX, FastWeights, Linear
from vla_trt_ros.policies.pi05.cuda.tables import StepTables

EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Stream:
    """The expert's residual stream, not yet normalised, ready for the next product."""

    x: Tensor
    """float32 [rows, W]."""
    scaled: Tensor
    """[rows, W]: x times the next norm's factor, stored for the next product."""
    squares: Tensor
    """float32 [parts, rows]: sums of x squared, to be added up."""


class Ops(Protocol):
    """Fused operations on 2-D tensors, a token a row. H is the horizon, rows beyond it padding."""

    def linear(self, a: Tensor, into: Linear) -> Tensor:
        """``a`` as stored for ``into`` -> the product, in the compute dtype."""

    def add_norm(self, x: Tensor, y: Tensor | None, into: Linear, centre: bool) -> Tensor:
        """X += y in place, then x normalised: layer norm if ``centre``, else RMS norm."""

    def gelu_product(self, a: Tensor, product: Linear, into: Linear) -> Tensor:
        """The product of ``a``, then GELU in its tanh form."""

    def geglu_product(self, a: Tensor, product: Linear, into: Linear) -> Tensor:
        """The product of ``a``, [T, 2 F], a gate and its up in turn -> gelu(gate) * up, [T, F]."""

    def full_attention(self, qkv: Tensor, views: int, heads: int, into: Linear) -> Tensor:
        """[V * T, 3 W] -> each view's tokens attend to each other: [V * T, W]."""

    def rotate_store(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor | None:
        """Writes rows 0... of keys and values [S, D]; returns queries [T * heads, D], if any."""

    def prefix_attention(
        self, q: Tensor, keys: Tensor, values: Tensor, valid: Tensor, into: Linear
    ) -> Tensor:
        """Queries [T * heads, D] to the first ``valid`` rows of keys: [T, heads * D]."""

    def denoise(self, weights: FastWeights, buffers: Buffers, tables: StepTables) -> bool:
        """All steps in one launch; False, and nothing done, where that does not serve these
        weights: the operations below do it then.
        """

    def begin(self, latent: Tensor, action_in: Linear, factor: Tensor, into: Linear) -> Stream:
        """Latent [rows, A] -> the stream in front of the first layer."""

    def heads(
        self,
        stream: Stream,
        qkv: Linear,
        shift: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        valid: Tensor,
        horizon: int,
    ) -> Tensor:
        """Norm, QKV, rotation; stores K and V of H rows behind the valid ones. -> queries."""

    def attend(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        valid: Tensor,
        horizon: int,
        into: Linear,
    ) -> Tensor:
        """Queries [rows * heads, D] to the first valid + H keys -> [rows, heads * D]."""

    def add_product(
        self,
        stream: Stream,
        a: Tensor,
        product: Linear,
        gate: Tensor,
        factor: Tensor,
        into: Linear,
    ) -> Stream:
        """X + gate * product(a), and what the next norm and product need."""

    def gate_up(self, stream: Stream, product: Linear, shift: Tensor, into: Linear) -> Tensor:
        """Norm, gate and up products, GeGLU -> [rows, F]."""

    def euler(
        self,
        stream: Stream,
        action_out: Linear,
        shift: Tensor,
        dt: float,
        latent: Tensor,
        target: Tensor,
    ) -> None:
        """Target = latent + dt * velocity."""


class TorchOps:
    """The protocol in plain PyTorch, float32 inside: the reference of every kernel."""

    def linear(self, a: Tensor, into: Linear) -> Tensor:
        out = self._product(a, into)
        if into.bias is not None:
            out = out + into.bias.float()
        if into.result:
            return out.clamp(-FP8_MAX, FP8_MAX).to(FP8)
        return out.to(self._dtype(into))

    def add_norm(self, x: Tensor, y: Tensor | None, into: Linear, centre: bool) -> Tensor:
        if y is not None:
            x.add_(y)
        wide = x.float()
        if centre:
            wide = wide - wide.mean(-1, keepdim=True)
        return self._store(wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS), into)

    def gelu_product(self, a: Tensor, product: Linear, into: Linear) -> Tensor:
        return self._store(F.gelu(self.linear(a, product).float(), approximate='tanh'), into)

    def geglu_product(self, a: Tensor, product: Linear, into: Linear) -> Tensor:
        h = self.linear(a, product).float()
        h = h * product.result if product.result else h
        return self._geglu(h[:, ::2], h[:, 1::2], into)

    def _geglu(self, gate: Tensor, up: Tensor, into: Linear) -> Tensor:
        return self._store(F.gelu(gate, approximate='tanh') * up, into)

    def full_attention(self, qkv: Tensor, views: int, heads: int, into: Linear) -> Tensor:
        parts = qkv.float().reshape(views, -1, 3, heads, qkv.shape[1] // (3 * heads))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self._store(out.reshape(qkv.shape[0], -1), into)

    def rotate_store(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor | None:
        count, dim = qkv.shape[0], keys.shape[1]
        parts = qkv.reshape(count, -1, dim)
        turned = _rotate(parts[:, :-1], cos[:count], sin[:count]).to(keys.dtype)
        keys[:count], values[:count] = turned[:, -1], parts[:, -1]
        return turned[:, :-1].reshape(-1, dim) if turned.shape[1] > 1 else None

    def prefix_attention(
        self, q: Tensor, keys: Tensor, values: Tensor, valid: Tensor, into: Linear
    ) -> Tensor:
        return self._attend(q, keys, values, valid, into)

    def denoise(self, weights: FastWeights, buffers: Buffers, tables: StepTables) -> bool:
        return False

    def begin(self, latent: Tensor, action_in: Linear, factor: Tensor, into: Linear) -> Stream:
        assert action_in.bias is not None
        return self._stream(latent @ action_in.weight.T + action_in.bias, factor, into)

    def heads(
        self,
        stream: Stream,
        qkv: Linear,
        shift: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        valid: Tensor,
        horizon: int,
    ) -> Tensor:
        rows, dim = stream.x.shape[0], keys.shape[1]
        parts = self._normed(stream, qkv, shift).reshape(rows, -1, dim)
        # Where the suffix begins stays on the device: a graph must not depend on its value.
        place = valid + torch.arange(rows, device=valid.device)
        turned = _rotate(parts[:, :-1], cos[place], sin[place]).to(keys.dtype)
        keys.index_copy_(0, place[:horizon], turned[:horizon, -1])
        values.index_copy_(0, place[:horizon], parts[:horizon, -1].to(values.dtype))
        return turned[:, :-1].reshape(-1, dim)

    def attend(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        valid: Tensor,
        horizon: int,
        into: Linear,
    ) -> Tensor:
        return self._attend(q, keys, values, valid + horizon, into)

    def add_product(
        self,
        stream: Stream,
        a: Tensor,
        product: Linear,
        gate: Tensor,
        factor: Tensor,
        into: Linear,
    ) -> Stream:
        return self._stream(stream.x + gate * self._product(a, product), factor, into)

    def gate_up(self, stream: Stream, product: Linear, shift: Tensor, into: Linear) -> Tensor:
        gate, up = self._normed(stream, product, shift).chunk(2, dim=-1)
        return self._geglu(gate, up, into)

    def euler(
        self,
        stream: Stream,
        action_out: Linear,
        shift: Tensor,
        dt: float,
        latent: Tensor,
        target: Tensor,
    ) -> None:
        target.copy_(latent + dt * self._normed(stream, action_out, shift))

    def _dtype(self, into: Linear) -> torch.dtype:
        return torch.bfloat16 if into.quantized else into.weight.dtype

    def _product(self, a: Tensor, into: Linear) -> Tensor:
        out = a.float() @ into.weight.float().T
        if into.act_scale is not None:
            out = out * into.act_scale
        return out if into.scale is None else out * into.scale

    def _store(self, value: Tensor, into: Linear) -> Tensor:
        if into.quantized:
            return (value / into.act).clamp(-FP8_MAX, FP8_MAX).to(FP8)
        return value.to(into.weight.dtype)

    def _attend(
        self, q: Tensor, keys: Tensor, values: Tensor, count: Tensor, into: Linear
    ) -> Tensor:
        here = torch.arange(keys.shape[0], device=count.device) < count
        k, v = keys[None].float(), values[None].float()
        out = F.scaled_dot_product_attention(q[None].float(), k, v, attn_mask=here[None])[0]
        return self._store(out.reshape(-1, into.weight.shape[1]), into)

    def _stream(self, x: Tensor, factor: Tensor, into: Linear) -> Stream:
        return Stream(x, self._store(x * factor, into), x.square().sum(-1)[None])

    def _normed(self, stream: Stream, into: Linear, shift: Tensor) -> Tensor:
        mean = stream.squares.sum(0) / stream.x.shape[1]
        return self._product(stream.scaled, into) * torch.rsqrt(mean + EPS)[:, None] + shift


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[T, heads, D] by angles [T, D / 2]: entry i is paired with entry i + D / 2."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
