"""Attention of many query rows to one key-value head, keys counted on the device."""

import triton
import triton.language as tl

from vla_trt_ros.policies.pi05.cuda.kernels.common import stored, wait_for_inputs


@triton.jit
def _over_keys(
    q,
    keys,
    values,
    lo,
    hi,
    scale,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Softmax over keys lo to hi: unnormalised sum [BM, D], its weight and maximum [BM]."""
    d = tl.arange(0, D)
    acc = tl.zeros((BM, D), tl.float32)
    top = tl.full((BM,), -1.0e30, tl.float32)
    weight = tl.zeros((BM,), tl.float32)
    for start in tl.range(lo, hi, BN, num_stages=STAGES):
        at = start + tl.arange(0, BN)
        k = tl.load(keys + at[:, None] * D + d[None, :], at[:, None] < hi, 0.0)
        logits = tl.dot(q, tl.trans(k)) * scale
        logits = tl.where(at[None, :] < hi, logits, -1.0e30)
        higher = tl.maximum(top, tl.max(logits, 1))
        p = tl.exp2(logits - higher[:, None])
        fade = tl.exp2(top - higher)
        weight = weight * fade + tl.sum(p, 1)
        v = tl.load(values + at[:, None] * D + d[None, :], at[:, None] < hi, 0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * fade[:, None])
        top = higher
    return acc, weight, top


@triton.jit
def prefix_attention(
    q,
    keys,
    values,
    out,
    valid,
    inverse,
    scale,
    count,
    FP8: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Rows [count, D] to the first ``valid`` keys; a program is BM rows."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    at = rows[:, None] * D + d[None, :]
    query = tl.load(q + at, rows[:, None] < count, 0.0)
    acc, weight, _ = _over_keys(query, keys, values, 0, tl.load(valid), scale, D, BM, BN, STAGES)
    value = stored(acc / weight[:, None], inverse, FP8)
    tl.store(out + at, value.to(out.dtype.element_ty), rows[:, None] < count)


@triton.jit
def split_attention(
    q,
    keys,
    values,
    partial,
    weights,
    valid,
    horizon,
    scale,
    count,
    CHAIN: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SPLITS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Rows [count, D] to one part of the keys: partial [SPLITS, count, D] normalised within the
    part, and log2 of the part's weight [SPLITS, count].
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    part = tl.program_id(1)
    d = tl.arange(0, D)
    at = rows[:, None] * D + d[None, :]
    wait_for_inputs(CHAIN)
    end = tl.load(valid) + horizon
    length = tl.cdiv(tl.cdiv(end, SPLITS), BN) * BN
    query = tl.load(q + at, rows[:, None] < count, 0.0)
    acc, weight, top = _over_keys(
        query,
        keys,
        values,
        part * length,
        tl.minimum(part * length + length, end),
        scale,
        D,
        BM,
        BN,
        STAGES,
    )
    some = tl.maximum(weight, 1.0e-30)
    value = acc / some[:, None]
    target = partial + part * count * D + at
    tl.store(target, value.to(partial.dtype.element_ty), rows[:, None] < count)
    tl.store(weights + part * count + rows, top + tl.log2(some), rows < count)


@triton.jit
def merge_parts(
    partial,
    weights,
    out,
    inverse,
    count,
    FP8: tl.constexpr,
    CHAIN: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """The parts of `split_attention` -> [count, D]."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    parts = tl.arange(0, SPLITS)
    d = tl.arange(0, D)
    inside = rows < count
    wait_for_inputs(CHAIN)
    lse = tl.load(weights + parts[:, None] * count + rows[None, :], inside[None, :], 0.0)
    share = tl.exp2(lse - tl.max(lse, 0)[None, :])
    share = share / tl.sum(share, 0)[None, :]
    at = (parts[:, None, None] * count + rows[None, :, None]) * D + d[None, None, :]
    value = tl.load(partial + at, inside[None, :, None], 0.0).to(tl.float32)
    value = stored(tl.sum(value * share[:, :, None], 0), inverse, FP8)
    target = out + rows[:, None] * D + d[None, :]
    tl.store(target, value.to(out.dtype.element_ty), inside[:, None])
