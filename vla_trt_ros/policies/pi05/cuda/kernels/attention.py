"""Attention of many query rows to one key-value head, keys counted on the device."""

import triton
import triton.language as tl

from vla_trt_ros.policies.pi05.cuda.kernels.common import let_next_start, stored, wait_for_inputs


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
    CHAIN: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Rows [count, D] to the first ``valid`` keys; a program is BM rows."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    at = rows[:, None] * D + d[None, :]
    wait_for_inputs(CHAIN, 2)
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
    TOUCH: tl.constexpr,
    RELEASE: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Rows [count, D] to one part of the keys, BN of them: partial [SPLITS, count, D] normalised
    within the part, and log2 of the part's weight [SPLITS, count].

    The last part is the suffix, which the kernel in front writes; the prefix's keys and values
    are there already and are read before it ends.
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    part = tl.program_id(1)
    d = tl.arange(0, D)
    at = rows[:, None] * D + d[None, :]
    prefix = tl.load(valid)
    key = part * BN + tl.arange(0, BN)
    end = prefix
    if part == SPLITS - 1:
        key = prefix + tl.arange(0, BN)
        end = prefix + horizon
        wait_for_inputs(CHAIN, 2)
    there = key[:, None] < end
    k = tl.load(keys + key[:, None] * D + d[None, :], there, 0.0)
    v = tl.load(values + key[:, None] * D + d[None, :], there, 0.0)
    wait_for_inputs(CHAIN, RELEASE)
    query = tl.load(q + at, rows[:, None] < count, 0.0)
    logits = tl.dot(query, tl.trans(k)) * scale
    logits = tl.where(key[None, :] < end, logits, -1.0e30)
    top = tl.max(logits, 1)
    p = tl.exp2(logits - top[:, None])
    weight = tl.sum(p, 1)
    acc = tl.dot(p.to(v.dtype), v)
    let_next_start(CHAIN, RELEASE)
    value = acc / weight[:, None]
    target = partial + part * count * D + at
    tl.store(target, value.to(partial.dtype.element_ty), rows[:, None] < count)
    tl.store(weights + part * count + rows, top + tl.log2(weight), rows < count)


@triton.jit
def merge_parts(
    partial,
    weights,
    out,
    inverse,
    count,
    FP8: tl.constexpr,
    CHAIN: tl.constexpr,
    TOUCH: tl.constexpr,
    RELEASE: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """The parts of `split_attention` -> [count, D]."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    inside = rows < count
    at = rows[:, None] * D + d[None, :]
    wait_for_inputs(CHAIN, RELEASE)
    top = tl.full((BM,), -1.0e30, tl.float32)
    for part in tl.static_range(SPLITS):
        top = tl.maximum(top, tl.load(weights + part * count + rows, inside, 0.0))
    total = tl.zeros((BM,), tl.float32)
    value = tl.zeros((BM, D), tl.float32)
    for part in tl.static_range(SPLITS):
        share = tl.exp2(tl.load(weights + part * count + rows, inside, 0.0) - top)
        piece = tl.load(partial + part * count * D + at, inside[:, None], 0.0).to(tl.float32)
        value += piece * share[:, None]
        total += share
    value = stored(value / total[:, None], inverse, FP8)
    tl.store(out + at, value.to(out.dtype.element_ty), inside[:, None])
