"""Weights in few bits: NumPy arrays in, values and scales out. GEMM weights are [K, N].

Every function rounds to the scales as they are stored, so that the reader's arithmetic and the
rounding here agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from vla_trt_ros.backends.base import Array
from vla_trt_ros.datatypes import Float32Array
from vla_trt_ros.errors import BundleError

E4M3_MAX, E2M1_MAX, INT8_MAX, INT4_MAX = 448.0, 6.0, 127.0, 7.0
FP4_BLOCK = 16
INT4_BLOCK = 128
_CHUNK = 1 << 24  # numbers looked at together: a mask of 16 MB
_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)


@dataclass(frozen=True, slots=True)
class Quantized:
    """``values`` [K, N]; ``scales`` [N], or [K / block, N]; ``tensor_scale`` [] where the scales
    themselves are scaled.
    """

    values: Array
    scales: Array
    tensor_scale: Array | None = None


def dtype_of(name: str) -> np.dtype[np.generic]:
    """NumPy's dtype, or that of ml_dtypes."""
    return np.dtype(getattr(ml_dtypes, name, name))


def check_finite(name: str, weight: Array) -> None:
    """BundleError counts the NaN and Inf of ``weight``."""
    flat = weight.reshape(-1)
    bad = sum(
        int(np.count_nonzero(~np.isfinite(flat[i : i + _CHUNK])))
        for i in range(0, flat.size, _CHUNK)
    )
    if bad:
        raise BundleError(
            f'weight {name!r} holds {bad} NaN or Inf of {weight.size} numbers; the checkpoint is '
            'damaged, or overflowed when it was cast: export it again from the original.'
        )


def as_float32(name: str, weight: Array) -> Float32Array:
    """``weight`` as float32, checked to be finite."""
    check_finite(name, weight)
    return np.asarray(weight, np.float32)


def activation_scale(amax: float, largest: float, dtype: str) -> Array:
    """Per-tensor scale [] in ``dtype`` that maps ``amax`` to ``largest``."""
    return np.asarray(amax / largest, dtype_of(dtype))


def to_fp8(weight: Float32Array, scale_dtype: str) -> Quantized:
    """E4M3 values, a scale per column."""
    scales = _scales(np.abs(weight).max(axis=0), E4M3_MAX, scale_dtype)
    scaled = weight / scales.astype(np.float32)
    values = np.clip(scaled, -E4M3_MAX, E4M3_MAX).astype(ml_dtypes.float8_e4m3fn)
    return Quantized(values, scales)


def to_int8(weight: Float32Array, scale_dtype: str) -> Quantized:
    """Symmetric 8-bit integers, a scale per column."""
    scales = _scales(np.abs(weight).max(axis=0), INT8_MAX, scale_dtype)
    scaled = np.rint(weight / scales.astype(np.float32))
    return Quantized(np.clip(scaled, -INT8_MAX, INT8_MAX).astype(np.int8), scales)


def to_int8_pairs(weight: Float32Array) -> Quantized:
    """As `to_int8`, float32 scales, and no two rows 2k and 2k + 1 of a column sum to more than
    128 in magnitude.

    x86 processors without VNNI add two products of uint8 and int8 in 16 bits, which saturates;
    255 * 128 does not. So every processor gives the same sums, for scales a third larger.
    """
    size = np.abs(np.pad(weight, ((0, weight.shape[0] % 2), (0, 0))))
    pairs = (size[0::2] + size[1::2]).max(axis=0)
    # 127: rounding may take each of a pair up by half a level.
    scales = _scales(np.maximum(size.max(axis=0), pairs), INT8_MAX, 'float32')
    return Quantized(np.rint(weight / scales).astype(np.int8), scales)


def to_int4(weight: Float32Array, scale_dtype: str) -> Quantized:
    """Symmetric 4-bit integers, a scale per block of rows and column.

    The scale is the one of a few that leaves the smallest squared error: to clip a block's
    largest weight a little costs less than to coarsen all others.
    """
    block = block_of(weight.shape[0], INT4_BLOCK)
    blocks = weight.reshape(-1, block, weight.shape[1])
    amax = np.abs(blocks).max(axis=1)
    best = np.full(amax.shape, np.inf, np.float32)
    scales = _scales(amax, INT4_MAX, scale_dtype)
    values = np.zeros(blocks.shape, np.int8)
    for shrink in _SHRINK:
        tried = _scales(amax * shrink, INT4_MAX, scale_dtype)
        wide = tried.astype(np.float32)[:, None, :]
        rounded = np.clip(np.rint(blocks / wide), -8, 7)
        error = np.square(rounded * wide - blocks).sum(axis=1)
        better = error < best
        best = np.where(better, error, best)
        scales = np.where(better, tried, scales)
        values = np.where(better[:, None, :], rounded.astype(np.int8), values)
    return Quantized(values.reshape(weight.shape).astype(ml_dtypes.int4), scales)


def to_nvfp4(weight: Float32Array, scale_dtype: str) -> Quantized:
    """E2M1 values; an E4M3 scale per block of 16 rows and column, times one for the tensor."""
    blocks = weight.reshape(-1, FP4_BLOCK, weight.shape[1])
    amax = np.abs(blocks).max(axis=1)
    tensor_scale = fp4_tensor_scale(float(amax.max()), scale_dtype)
    outer = tensor_scale.astype(np.float32)
    scales = (amax / E2M1_MAX / outer).clip(0, E4M3_MAX).astype(ml_dtypes.float8_e4m3fn)
    # The reader multiplies the two scales in the compute dtype.
    wide = (scales.astype(np.float32) * outer).astype(tensor_scale.dtype).astype(np.float32)
    wide = np.broadcast_to(wide[:, None, :], blocks.shape)
    scaled = np.divide(blocks, wide, out=np.zeros_like(blocks), where=wide > 0)
    values = np.clip(scaled, -E2M1_MAX, E2M1_MAX).astype(ml_dtypes.float4_e2m1fn)
    return Quantized(values.reshape(weight.shape), scales, tensor_scale)


def fp4_tensor_scale(amax: float, dtype: str) -> Array:
    """The outer scale [] in ``dtype``: the largest block scale then is E4M3's largest number."""
    return np.asarray(amax / (E2M1_MAX * E4M3_MAX) if amax > 0 else 1.0, dtype_of(dtype))


def block_of(rows: int, wanted: int) -> int:
    """``wanted`` rows a block, or the largest half of it that divides ``rows``.

    BundleError below 16: no reader takes such blocks.
    """
    block = wanted
    while rows % block:
        block //= 2
    if block < FP4_BLOCK:
        raise BundleError(
            f'{rows} rows cannot be cut into blocks of {FP4_BLOCK} or more; keep this GEMM.'
        )
    return block


def _scales(amax: Array, largest: float, dtype: str) -> Array:
    """``amax / largest`` in ``dtype``; 1 where a channel is all zeros, or too small for it."""
    scales = (np.asarray(amax, np.float32) / largest).astype(dtype_of(dtype))
    return np.where(scales > 0, scales, np.ones_like(scales))


@dataclass(frozen=True, slots=True)
class Format:
    """How weights are quantised, by dtype of the weight."""

    quantize: Callable[[Float32Array, str], Quantized]
    """Weight [K, N] and dtype of the scales."""
    largest: float
    """What the largest magnitude is mapped to."""
    block: int = 0
    """Rows that share a scale; 0: the whole column does."""
    two_level: bool = False

    def block_of(self, rows: int) -> int:
        """Rows that share a scale in a weight of ``rows``."""
        return block_of(rows, self.block) if self.block else 0


FORMATS = {
    'float8_e4m3fn': Format(to_fp8, E4M3_MAX),
    'int8': Format(to_int8, INT8_MAX),
    'int4': Format(to_int4, INT4_MAX, INT4_BLOCK),
    'float4_e2m1fn': Format(to_nvfp4, E2M1_MAX, FP4_BLOCK, two_level=True),
}
