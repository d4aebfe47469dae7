"""The half of operations.Ops that vision and prefix use: library GEMMs, Triton between them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from triton.tools.tensor_descriptor import TensorDescriptor

from vla_trt_ros.policies.pi05.cuda import prefix_attention
from vla_trt_ros.policies.pi05.cuda.fold import FP8, Linear
from vla_trt_ros.policies.pi05.cuda.kernels import attention, products, rows
from vla_trt_ros.policies.pi05.cuda.tuning import Tuning

_VISION_ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


class PrefixOps:
    """Results are new tensors; in a graph their memory is the graph's."""

    tuning: Tuning

    @property
    def _chained(self) -> dict[str, bool]:
        """Programmatic dependent launch behind the library's kernels: they do not let the next
        one go, but its start is prepared while they end.
        """
        return {'CHAIN': self.tuning.chain, **({'launch_pdl': True} if self.tuning.chain else {})}

    def linear(self, a: Tensor, into: Linear) -> Tensor:
        if into.quantized:
            return torch._scaled_mm(
                a,
                into.weight.t(),
                scale_a=into.act_scale,
                scale_b=into.scale,
                bias=into.bias,
                out_dtype=FP8 if into.result else torch.bfloat16,
                use_fast_accum=True,
            )
        if into.bias is None:
            return torch.mm(a, into.weight.t())
        return torch.addmm(into.bias, a, into.weight.t())

    def add_norm(self, x: Tensor, y: Tensor | None, into: Linear, centre: bool) -> Tensor:
        count, width = x.shape
        out = torch.empty_like(x, dtype=into.weight.dtype)
        block = triton.next_power_of_2(width)
        rows.add_norm[(count,)](
            x,
            x if y is None else y,
            out,
            1.0 / into.act,
            width,
            ADD=y is not None,
            CENTRE=centre,
            FP8=into.quantized,
            BLOCK=block,
            num_warps=4,
            **self._chained,
        )
        return out

    def gelu_product(self, a: Tensor, product: Linear, into: Linear) -> Tensor:
        if not product.quantized and not into.quantized:
            bias = product.bias
            return torch._addmm_activation(bias, a, product.weight.t(), use_gelu=True)
        h = self.linear(a, product)
        out = torch.empty_like(h, dtype=into.weight.dtype)
        block, count = 2048, h.numel()
        rows.gelu[(triton.cdiv(count, block),)](
            h,
            out,
            1.0 / into.act,
            count,
            FP8=into.quantized,
            BLOCK=block,
            num_warps=4,
            **self._chained,
        )
        return out

    def geglu_product(self, a: Tensor, product: Linear, into: Linear) -> Tensor:
        if a.shape[0] >= self.tuning.geglu_rows:
            return self._geglu_in_product(a, product, into)
        h = self.linear(a, product)
        width = h.shape[1] // 2
        out = torch.empty(h.shape[0], width, dtype=into.weight.dtype, device=h.device)
        block = min(4096, triton.next_power_of_2(width))
        rows.geglu[(h.shape[0], triton.cdiv(width, block))](
            h,
            out,
            product.result or 1.0,
            1.0 / into.act,
            width,
            FP8=into.quantized,
            BLOCK=block,
            num_warps=8,
            **self._chained,
        )
        return out

    def _geglu_in_product(self, a: Tensor, product: Linear, into: Linear) -> Tensor:
        count, depth = a.shape
        width = product.weight.shape[0]
        out = torch.empty(count, width // 2, dtype=into.weight.dtype, device=a.device)
        block, columns, inner = 128, 256, 128 // a.element_size()
        tiles = triton.cdiv(count, block) * triton.cdiv(width, columns)
        processors = torch.cuda.get_device_properties(a.device).multi_processor_count
        products.geglu_product[(min(tiles, processors),)](
            TensorDescriptor.from_tensor(a, [block, inner]),
            TensorDescriptor.from_tensor(product.weight, [columns, inner]),
            TensorDescriptor.from_tensor(out, [block, columns // 2]),
            product.scale,
            product.act_scale,
            product.result or 1.0,
            1.0 / into.act,
            count,
            width,
            depth,
            FP8=into.quantized,
            BM=block,
            BN=columns,
            BK=inner,
            GROUP=8,
            PROGRAMS=min(tiles, processors),
            num_warps=8,
            num_stages=4,
            **self._chained,
        )
        return out

    def full_attention(self, qkv: Tensor, views: int, heads: int, into: Linear) -> Tensor:
        parts = qkv.view(views, -1, 3, heads, qkv.shape[1] // (3 * heads))
        q, k, v = (part.transpose(1, 2) for part in parts.unbind(2))
        with sdpa_kernel(_VISION_ATTENTION, set_priority=True):
            out = F.scaled_dot_product_attention(q, k, v)
        merged = out.transpose(1, 2).reshape(qkv.shape[0], -1)
        return self._quantized(merged, into) if into.quantized else merged

    def rotate_store(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor | None:
        count, dim = qkv.shape[0], keys.shape[1]
        heads = qkv.shape[1] // dim - 2
        q = qkv.new_empty(max(1, count * heads), dim)
        rows.rotate_store[(count,)](
            qkv,
            q,
            keys,
            values,
            cos,
            sin,
            HEADS=heads,
            HALF=dim // 2,
            BLOCK=triton.next_power_of_2(heads + 2),
            num_warps=4,
            **self._chained,
        )
        return q if heads else None

    def prefix_attention(
        self, q: Tensor, keys: Tensor, values: Tensor, valid: Tensor, into: Linear
    ) -> Tensor:
        count, dim = q.shape
        width = into.weight.shape[1]
        out = torch.empty(count * dim // width, width, dtype=into.weight.dtype, device=q.device)
        if prefix_attention.serves(q):
            prefix_attention.attend(q, keys, values, valid, out, 1.0 / into.act)
            return out
        block, keys_block, warps, stages = self.tuning.prefix
        attention.prefix_attention[(triton.cdiv(count, block),)](
            q,
            keys,
            values,
            out,
            valid,
            1.0 / into.act,
            math.log2(math.e) / math.sqrt(dim),
            count,
            FP8=into.quantized,
            D=dim,
            BM=block,
            BN=keys_block,
            STAGES=stages,
            num_warps=warps,
            **self._chained,
        )
        return out

    def _quantized(self, a: Tensor, into: Linear) -> Tensor:
        out = torch.empty_like(a, dtype=FP8)
        block, count = 2048, a.numel()
        rows.quantize[(triton.cdiv(count, block),)](
            a, out, 1.0 / into.act, count, BLOCK=block, num_warps=4, **self._chained
        )
        return out
