"""The half of operations.Ops that denoise steps use: weight-streaming Triton kernels."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from vla_trt_ros.policies.pi05.cuda.buffers import Buffers
from vla_trt_ros.policies.pi05.cuda.fold import FastWeights, Linear
from vla_trt_ros.policies.pi05.cuda.kernels import attention, decode
from vla_trt_ros.policies.pi05.cuda.operations import Stream
from vla_trt_ros.policies.pi05.cuda.persistent import PersistentDenoise, refusal
from vla_trt_ros.policies.pi05.cuda.tables import StepTables
from vla_trt_ros.policies.pi05.cuda.tuning import Tile, Tuning


class DecodeOps:
    """Results live in fixed buffers until the next call of the same operation."""

    def __init__(self, tuning: Tuning, horizon: int) -> None:
        self.tuning, self.horizon = tuning, horizon
        self._kept: dict[tuple[Any, ...], Tensor] = {}
        self._whole: tuple[FastWeights, PersistentDenoise | None] | None = None

    def denoise(self, weights: FastWeights, buffers: Buffers, tables: StepTables) -> bool:
        # The weights are put in order at the first call, which is no captured one.
        if self._whole is None or self._whole[0] is not weights:
            serves = self.tuning.whole and not refusal(weights, buffers)
            self._whole = weights, PersistentDenoise(weights, buffers) if serves else None
        whole = self._whole[1]
        if whole is not None:
            whole.run(weights, buffers, tables)
        return whole is not None

    def begin(self, latent: Tensor, action_in: Linear, factor: Tensor, into: Linear) -> Stream:
        assert action_in.bias is not None
        width, columns = action_in.weight.shape
        cols = self.tuning.out.cols
        stream = self._stream('begin', latent.shape[0], width, cols, into)
        decode.begin[(width // cols,)](
            latent,
            action_in.weight,
            action_in.bias,
            factor,
            stream.x,
            stream.scaled,
            stream.squares,
            1.0 / into.act,
            FP8=into.quantized,
            A=columns,
            WIDTH=width,
            LIVE=self.horizon,
            ROWS=latent.shape[0],
            COLS=cols,
            **self._launch(),
        )
        return stream

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
        count, dim = stream.x.shape[0], keys.shape[1]
        heads = qkv.weight.shape[0] // dim - 2
        q = self._keep('q', (count * heads, dim), keys.dtype, keys)
        tile = self.tuning.qkv
        self._pair(
            stream,
            qkv,
            shift,
            q,
            tile,
            (heads + 2) * (dim // 2 // tile.cols),
            keys=keys,
            values=values,
            cos=cos,
            sin=sin,
            valid=valid,
            inverse=1.0,
            LIVE=horizon,
            ROTARY=True,
            FP8=False,
            HEADS=heads,
            HALF=dim // 2,
            HIDDEN=0,
        )
        return q

    def attend(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        valid: Tensor,
        horizon: int,
        into: Linear,
    ) -> Tensor:
        tile, (padded, dim) = self.tuning.attend, q.shape
        width = into.weight.shape[1]
        out = self._keep('attended', (padded * dim // width, width), into.weight.dtype, q)
        count = horizon * width // dim
        parts = triton.cdiv(keys.shape[0] - padded * dim // width, tile.depth) + 1
        partial = self._keep('partial', (parts, count, dim), q.dtype, q)
        weights = self._keep('weights', (parts, count), torch.float32, q)
        attention.split_attention[(triton.cdiv(count, tile.cols), parts)](
            q,
            keys,
            values,
            partial,
            weights,
            valid,
            horizon,
            math.log2(math.e) / math.sqrt(dim),
            count,
            D=dim,
            BM=tile.cols,
            BN=tile.depth,
            SPLITS=parts,
            num_warps=tile.warps,
            **self._launch(),
        )
        attention.merge_parts[(triton.cdiv(count, self.tuning.merge_rows),)](
            partial,
            weights,
            out,
            1.0 / into.act,
            count,
            FP8=into.quantized,
            D=dim,
            BM=self.tuning.merge_rows,
            SPLITS=parts,
            num_warps=self.tuning.merge_rows,
            **self._launch(),
        )
        return out

    def add_product(
        self,
        stream: Stream,
        a: Tensor,
        product: Linear,
        gate: Tensor,
        factor: Tensor,
        into: Linear,
    ) -> Stream:
        width, inner = product.weight.shape
        tile = self.tuning.down if product.name.endswith('down') else self.tuning.out
        count = stream.x.shape[0]
        after = self._stream('add', count, width, tile.cols, into)
        scratch = self._keep('scratch', (tile.split, count, width), torch.float32, a)
        tickets = self._keep('tickets', (width // tile.cols,), torch.int32, a)
        assert product.scale is not None
        decode.add_product[(width // tile.cols, tile.split)](
            a,
            product.weight,
            product.scale,
            gate,
            factor,
            stream.x,
            after.scaled,
            after.squares,
            scratch,
            tickets,
            1.0 / into.act,
            FP8=into.quantized,
            K=inner,
            WIDTH=width,
            LIVE=self.horizon,
            ROWS=count,
            SPLIT=tile.split,
            **self._tile(tile),
        )
        return Stream(stream.x, after.scaled, after.squares)

    def gate_up(self, stream: Stream, product: Linear, shift: Tensor, into: Linear) -> Tensor:
        count, hidden = stream.x.shape[0], product.weight.shape[0] // 2
        out = self._keep('hidden', (count, hidden), into.weight.dtype, stream.x)
        tile = self.tuning.gate_up
        self._pair(
            stream,
            product,
            shift,
            out,
            tile,
            hidden // tile.cols,
            keys=out,
            values=out,
            cos=shift,
            sin=shift,
            valid=stream.squares,
            inverse=1.0 / into.act,
            LIVE=self.horizon,
            ROTARY=False,
            FP8=into.quantized,
            HEADS=0,
            HALF=0,
            HIDDEN=hidden,
        )
        return out

    def euler(
        self,
        stream: Stream,
        action_out: Linear,
        shift: Tensor,
        dt: float,
        latent: Tensor,
        target: Tensor,
    ) -> None:
        columns, inner = action_out.weight.shape
        count, block = latent.shape[0], 16
        decode.euler[(triton.cdiv(self.horizon, block),)](
            stream.scaled,
            action_out.weight,
            shift,
            stream.squares,
            latent,
            target,
            dt,
            K=inner,
            A=columns,
            ROWS=count,
            PARTS=stream.squares.shape[0],
            BM=block,
            BK=min(256, inner),
            STAGES=3,
            num_warps=4,
            **self._launch(),
        )

    def _pair(
        self,
        stream: Stream,
        product: Linear,
        shift: Tensor,
        out: Tensor,
        tile: Tile,
        programs: int,
        **rest: Any,
    ) -> None:
        assert product.scale is not None
        decode.pair_product[(programs,)](
            stream.scaled,
            product.weight,
            product.scale,
            shift,
            stream.squares,
            out,
            K=product.weight.shape[1],
            ROWS=stream.x.shape[0],
            PARTS=stream.squares.shape[0],
            **rest,
            **self._tile(tile),
        )

    def _stream(self, name: str, count: int, width: int, cols: int, into: Linear) -> Stream:
        like = into.weight
        return Stream(
            self._keep('x', (count, width), torch.float32, like),
            self._keep('scaled', (count, width), into.weight.dtype, like),
            self._keep(f'{name} squares', (width // cols, count), torch.float32, like),
        )

    def _keep(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, like: Tensor) -> Tensor:
        key = (name, shape, dtype)
        if key not in self._kept:
            self._kept[key] = torch.zeros(shape, dtype=dtype, device=like.device)
        return self._kept[key]

    def _tile(self, tile: Tile) -> dict[str, Any]:
        return {
            'COLS': tile.cols,
            'BK': tile.depth,
            'STAGES': tile.stages,
            'num_warps': tile.warps,
            **self._launch(),
        }

    def _launch(self) -> dict[str, Any]:
        tuning = self.tuning
        return {
            'CHAIN': tuning.chain,
            'TOUCH': tuning.chain and tuning.touch,
            'RELEASE': tuning.release,
            **({'launch_pdl': True} if tuning.chain else {}),
        }
