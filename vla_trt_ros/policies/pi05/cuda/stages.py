"""Vision, prefix and denoise steps, one line an operation, on fixed buffers.

Nothing here asks which kernels or which precision run: `Ops` and the weights say it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vla_trt_ros.policies.pi05.cuda.buffers import Buffers, prefix_rows
from vla_trt_ros.policies.pi05.cuda.fold import FastWeights, Linear, patch_columns
from vla_trt_ros.policies.pi05.cuda.operations import Ops
from vla_trt_ros.policies.pi05.cuda.tables import StepTables


class Stages:
    """The network's three stages over one set of weights and buffers."""

    def __init__(
        self, weights: FastWeights, buffers: Buffers, ops: Ops, views: int | None = None
    ) -> None:
        """``views``: how many are there, the first ones of the buffers; all of them by default."""
        self.weights, self.buffers, self.ops = weights, buffers, ops
        self.views = views or buffers.pixels.shape[0]
        self._patches = torch.zeros(
            self.views * weights.config.tokens_per_view,
            patch_columns(weights.config),
            dtype=weights.patch.weight.dtype,
            device=buffers.pixels.device,
        )
        self._positions = weights.position.repeat(self.views, 1)

    def vision(self) -> None:
        """Pixels -> image tokens, at the head of ``hidden``."""
        w, ops = self.weights, self.ops
        x = self._embed_patches()
        y: Tensor | None = None
        for layer in w.vision:
            a = ops.add_norm(x, y, layer.qkv, centre=True)
            a = ops.full_attention(
                ops.linear(a, layer.qkv), self.views, w.config.vision.heads, layer.out
            )
            a = ops.add_norm(x, ops.linear(a, layer.out), layer.fc1, centre=True)
            y = ops.linear(ops.gelu_product(a, layer.fc1, layer.fc2), layer.fc2)
        a = ops.add_norm(x, y, w.projector, centre=True)
        self.buffers.hidden[: x.shape[0]] = ops.linear(a, w.projector)

    def prefix(self, bucket: int) -> None:
        """Image tokens and prompt -> keys and values of every layer."""
        w, b, ops = self.weights, self.buffers, self.ops
        images = self.views * w.config.tokens_per_view
        cache = zip(w.prefix, *self._cache(bucket), strict=True)
        x = b.hidden[: prefix_rows(w.config, self.views, bucket)]
        torch.index_select(w.embedding, 0, b.tokens[: x.shape[0] - images], out=x[images:])
        x[images:] *= math.sqrt(x.shape[1])
        y: Tensor | None = None
        for layer, keys, values in cache:
            qkv = ops.linear(ops.add_norm(x, y, layer.qkv, centre=False), layer.qkv)
            q = ops.rotate_store(qkv, b.cos, b.sin, keys, values)
            if q is None:
                return
            out, gate_up, down = _rest(layer.out, layer.gate_up, layer.down)
            a = ops.prefix_attention(q, keys, values, b.valid, out)
            a = ops.add_norm(x, ops.linear(a, out), gate_up, centre=False)
            y = ops.linear(ops.geglu_product(a, gate_up, down), down)

    def denoise(self, tables: StepTables, bucket: int | None = None) -> Tensor:
        """All steps of ``tables``, from latents[0]. Returns the actions: a view, [H, A].

        ``bucket`` bounds the keys that are looked at; None: all that the buffers hold.
        """
        steps = tables.factor.shape[0]
        keys, values = self._cache(bucket)
        if not self.ops.denoise(self.weights, self.buffers, tables):
            for step in range(steps):
                self._denoise_step(tables, step, -1.0 / steps, keys, values)
        return self.buffers.latents[steps, : self.weights.config.horizon]

    def _cache(self, bucket: int | None) -> tuple[Tensor, Tensor]:
        b, config = self.buffers, self.weights.config
        if bucket is None:
            return b.keys, b.values
        end = self.views * config.tokens_per_view + bucket + b.rows
        return b.keys[:, :end], b.values[:, :end]

    def _denoise_step(
        self, tables: StepTables, step: int, dt: float, all_keys: Tensor, all_values: Tensor
    ) -> None:
        w, b, ops = self.weights, self.buffers, self.ops
        horizon, factor, gate = w.config.horizon, tables.factor[step], tables.gate[step]
        stream = ops.begin(b.latents[step], w.action_in, factor[0], w.expert[0].qkv)
        behind = [layer.qkv for layer in w.expert[1:]] + [w.action_out]
        for i, layer in enumerate(w.expert):
            out, gate_up, down = _rest(layer.out, layer.gate_up, layer.down)
            keys, values = all_keys[i], all_values[i]
            shift = tables.qkv_shift[step, i]
            q = ops.heads(stream, layer.qkv, shift, b.cos, b.sin, keys, values, b.valid, horizon)
            a = ops.attend(q, keys, values, b.valid, horizon, out)
            stream = ops.add_product(stream, a, out, gate[2 * i], factor[2 * i + 1], gate_up)
            h = ops.gate_up(stream, gate_up, tables.gate_up_shift[step, i], down)
            stream = ops.add_product(
                stream, h, down, gate[2 * i + 1], factor[2 * i + 2], behind[i]
            )
        latent, target = b.latents[step], b.latents[step + 1]
        ops.euler(stream, w.action_out, tables.out_shift[step], dt, latent, target)

    def _embed_patches(self) -> Tensor:
        config, pixels = self.weights.config, self.buffers.pixels[: self.views]
        side, patch = config.image_size // config.patch, config.patch
        grid = pixels.reshape(self.views, 3, side, patch, side, patch).permute(0, 2, 4, 1, 3, 5)
        numbers = 3 * patch * patch
        # One copy casts, cuts and orders the pixels; the columns behind them stay zero.
        self._patches[:, :numbers].reshape(self.views, side, side, 3, patch, patch).copy_(grid)
        return torch.addmm(self._positions, self._patches, self.weights.patch.weight.T)


def _rest(*parts: Linear | None) -> tuple[Linear, Linear, Linear]:
    """The products behind attention; only the prefix's last layer has none."""
    out, gate_up, down = parts
    assert out is not None
    assert gate_up is not None
    assert down is not None
    return out, gate_up, down
