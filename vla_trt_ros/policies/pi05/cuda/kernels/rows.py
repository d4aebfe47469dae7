"""Kernels of vision and prefix that go over the rows of a tensor.

With CHAIN they are launched before the kernel in front of them has ended, and wait for it.
"""

import triton
import triton.language as tl

from vla_trt_ros.policies.pi05.cuda.kernels.common import (
    EPS,
    gelu_tanh,
    gelu_tanh_fast,
    stored,
    wait_for_inputs,
)


@triton.jit
def add_norm(
    x,
    y,
    out,
    inverse,
    width,
    ADD: tl.constexpr,
    CENTRE: tl.constexpr,
    FP8: tl.constexpr,
    CHAIN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """X += y, out = x normalised; a program a row."""
    start = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    wait_for_inputs(CHAIN, 2)
    value = tl.load(x + start + columns, inside, 0.0).to(tl.float32)
    if ADD:
        value += tl.load(y + start + columns, inside, 0.0).to(tl.float32)
        rounded = value.to(x.dtype.element_ty)
        tl.store(x + start + columns, rounded, inside)
        value = rounded.to(tl.float32)
    if CENTRE:
        value -= tl.sum(value, 0) / width
        value = tl.where(inside, value, 0.0)
    value *= tl.rsqrt(tl.sum(value * value, 0) / width + EPS)
    value = stored(value, inverse, FP8)
    tl.store(out + start + columns, value.to(out.dtype.element_ty), inside)


@triton.jit
def gelu(h, out, inverse, count, FP8: tl.constexpr, CHAIN: tl.constexpr, BLOCK: tl.constexpr):
    """Elementwise over ``count`` numbers."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    wait_for_inputs(CHAIN, 2)
    value = tl.load(h + at, at < count, 0.0).to(tl.float32)
    value = gelu_tanh_fast(value) if FP8 else gelu_tanh(value)
    tl.store(out + at, stored(value, inverse, FP8).to(out.dtype.element_ty), at < count)


@triton.jit
def geglu(
    h,
    out,
    quantum,
    inverse,
    width,
    FP8: tl.constexpr,
    CHAIN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """[T, 2 width], a gate and its up in turn -> [T, width]; a program is BLOCK columns."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    wait_for_inputs(CHAIN, 2)
    pairs = 2 * columns[:, None] + tl.arange(0, 2)[None, :]
    both = tl.load(h + row * 2 * width + pairs, inside[:, None], 0.0).to(tl.float32) * quantum
    gate, up = tl.split(both)
    gate = gelu_tanh_fast(gate) if FP8 else gelu_tanh(gate)
    value = stored(gate * up, inverse, FP8)
    tl.store(out + row * width + columns, value.to(out.dtype.element_ty), inside)


@triton.jit
def quantize(a, out, inverse, count, CHAIN: tl.constexpr, BLOCK: tl.constexpr):
    """Elementwise to FP8."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    wait_for_inputs(CHAIN, 2)
    value = stored(tl.load(a + at, at < count, 0.0).to(tl.float32), inverse, True)
    tl.store(out + at, value.to(out.dtype.element_ty), at < count)


@triton.jit
def rotate_store(
    qkv,
    q,
    keys,
    values,
    cos,
    sin,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    CHAIN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rotates HEADS queries and the key of a row, copies its value; a program a row."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, BLOCK)[:, None]
    column = tl.arange(0, HALF)[None, :]
    source = qkv + row * (HEADS + 2) * 2 * HALF + head * 2 * HALF + column
    there = (head < HEADS + 2) & (column < HALF)
    wait_for_inputs(CHAIN, 1)
    first = tl.load(source, there, 0.0).to(tl.float32)
    second = tl.load(source + HALF, there, 0.0).to(tl.float32)
    c = tl.load(cos + row * HALF + column)
    s = tl.load(sin + row * HALF + column)
    left = first * c - second * s
    right = second * c + first * s
    dtype = keys.dtype.element_ty
    if HEADS > 0:
        target = q + (row * HEADS + head) * 2 * HALF + column
        tl.store(target, left.to(dtype), there & (head < HEADS))
        tl.store(target + HALF, right.to(dtype), there & (head < HEADS))
    target = keys + row * 2 * HALF + column + head * 0
    tl.store(target, left.to(dtype), there & (head == HEADS))
    tl.store(target + HALF, right.to(dtype), there & (head == HEADS))
    target = values + row * 2 * HALF + column + head * 0
    tl.store(target, first.to(dtype), there & (head == HEADS + 1))
    tl.store(target + HALF, second.to(dtype), there & (head == HEADS + 1))
