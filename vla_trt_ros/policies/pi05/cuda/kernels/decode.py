"""The expert's products as weight streaming: all rows in one tile, weights read once.

A kernel reads its weights into L2 before it waits for the kernel in front of it, so that memory
is busy while that one ends. Inputs are not normalised: rows are scaled behind the product.
"""

import triton
import triton.language as tl

from vla_trt_ros.policies.pi05.cuda.kernels.common import (
    EPS,
    gelu_tanh,
    let_next_start,
    stored,
    touch,
    wait_for_inputs,
)


@triton.jit
def _load_squares(squares, PARTS: tl.constexpr, ROWS: tl.constexpr):
    at = tl.arange(0, PARTS)[:, None] * ROWS + tl.arange(0, ROWS)[None, :]
    return tl.load(squares + at)


@triton.jit
def pair_product(
    a,
    w,
    scale,
    shift,
    squares,
    out,
    keys,
    values,
    cos,
    sin,
    valid,
    inverse,
    ROTARY: tl.constexpr,
    FP8: tl.constexpr,
    CHAIN: tl.constexpr,
    TOUCH: tl.constexpr,
    RELEASE: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HIDDEN: tl.constexpr,
    K: tl.constexpr,
    LIVE: tl.constexpr,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
    COLS: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Norm and two products side by side: columns i and i + HALF of a head, rotated and stored as
    query, key or value; or gate and up, joined by GeGLU.
    """
    pid = tl.program_id(0)
    if ROTARY:
        per_head: tl.constexpr = HALF // COLS
        head = pid // per_head
        inner = (pid % per_head) * COLS
        first = head * 2 * HALF + inner
        second = first + HALF
    else:
        first = pid * COLS
        second = first + HIDDEN
    rows = tl.arange(0, ROWS)
    cols = tl.arange(0, COLS)
    ks = tl.arange(0, BK)
    # One product of both halves, column by column in turn: the two of a pair end in one thread.
    both = tl.arange(0, 2 * COLS)
    both = tl.where(both % 2 == 0, first, second) + both // 2
    BYTES: tl.constexpr = K * w.dtype.element_ty.primitive_bitwidth // 8
    weight = w + both[None, :] * K + ks[:, None]
    source = a + rows[:, None] * K + ks[None, :]
    live = rows[:, None] < LIVE
    ahead = ()
    if STAGES == 0:
        for i in tl.static_range(K // BK):
            ahead = ahead + (tl.load(weight + i * BK),)
    else:
        touch(w, both, BYTES, BYTES // 128, TOUCH)
    # What the end needs is asked for here, so that it is there by then.
    scale0 = tl.load(scale + first + cols)
    scale1 = tl.load(scale + second + cols)
    shift0 = tl.load(shift + first + cols)
    shift1 = tl.load(shift + second + cols)
    # Attention, which follows the rotary one, reads the cache before it waits: it may not start
    # while a kernel in front of this one still runs.
    wait_for_inputs(CHAIN, 1 if ROTARY and RELEASE == 0 else RELEASE)
    sums = _load_squares(squares, PARTS, ROWS)
    if ROTARY:
        start = tl.load(valid)
        place = (start + rows)[:, None] * HALF + (inner + cols)[None, :]
        c = tl.load(cos + place)
        s = tl.load(sin + place)
    acc = tl.zeros((ROWS, 2 * COLS), tl.float32)
    if STAGES == 0:
        for i in tl.static_range(K // BK):
            acc = tl.dot(tl.load(source + i * BK, live, 0.0), ahead[i], acc)
    else:
        for k in tl.range(0, K, BK, num_stages=STAGES):
            acc = tl.dot(tl.load(source + k, live, 0.0), tl.load(weight + k), acc)
    left, right = tl.split(acc.reshape(ROWS, COLS, 2))
    let_next_start(CHAIN, RELEASE)
    row_scale = tl.rsqrt(tl.sum(sums, 0) / K + EPS)[:, None]
    left = left * row_scale * scale0 + shift0
    right = right * row_scale * scale1 + shift1
    if ROTARY:
        if head <= HEADS:
            turned = left * c - right * s
            right = right * c + left * s
            left = turned
        dtype = out.dtype.element_ty
        if head < HEADS:
            target = out + (rows * HEADS + head)[:, None] * 2 * HALF + (inner + cols)[None, :]
            tl.store(target, left.to(dtype), live)
            tl.store(target + HALF, right.to(dtype), live)
        else:
            if head == HEADS:
                cache = keys
            else:
                cache = values
            target = cache + (start + rows)[:, None] * 2 * HALF + (inner + cols)[None, :]
            tl.store(target, left.to(dtype), live)
            tl.store(target + HALF, right.to(dtype), live)
    else:
        value = stored(gelu_tanh(left) * right, inverse, FP8)
        target = out + rows[:, None] * HIDDEN + (first + cols)[None, :]
        tl.store(target, value.to(out.dtype.element_ty), live)


@triton.jit
def _write_stream(
    value,
    x,
    factor,
    scaled,
    squares,
    inverse,
    tile,
    rows,
    columns,
    FP8: tl.constexpr,
    LIVE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    at = rows[:, None] * WIDTH + columns[None, :]
    live = rows[:, None] < LIVE
    tl.store(x + at, value, live)
    tl.store(squares + tile * ROWS + rows, tl.sum(value * value, 1))
    ready = stored(value * factor[None, :], inverse, FP8)
    tl.store(scaled + at, ready.to(scaled.dtype.element_ty), live)


@triton.jit
def add_product(
    a,
    w,
    scale,
    gate,
    factor,
    x,
    scaled,
    squares,
    scratch,
    tickets,
    inverse,
    FP8: tl.constexpr,
    CHAIN: tl.constexpr,
    TOUCH: tl.constexpr,
    RELEASE: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    LIVE: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    BK: tl.constexpr,
    SPLIT: tl.constexpr,
    STAGES: tl.constexpr,
):
    """X += gate * product. SPLIT programs share a tile's K; the last to finish adds their parts
    up, in order, so that the sum does not depend on who that was.
    """
    tile = tl.program_id(0)
    part = tl.program_id(1)
    PER: tl.constexpr = K // SPLIT
    rows = tl.arange(0, ROWS)
    columns = tile * COLS + tl.arange(0, COLS)
    ks = tl.arange(0, BK)
    BITS: tl.constexpr = w.dtype.element_ty.primitive_bitwidth
    weight = w + columns[None, :] * K + part * PER + ks[:, None]
    source = a + rows[:, None] * K + part * PER + ks[None, :]
    live = rows[:, None] < LIVE
    whole = ()
    if STAGES == 0:
        for i in tl.static_range(PER // BK):
            whole = whole + (tl.load(weight + i * BK),)
    else:
        touch(w + part * PER, columns, K * BITS // 8, PER * BITS // 1024, TOUCH)
    gain = tl.load(gate + columns) * tl.load(scale + columns)
    ahead = tl.load(factor + columns)
    wait_for_inputs(CHAIN, RELEASE)
    at = rows[:, None] * WIDTH + columns[None, :]
    before = tl.load(x + at, live, 0.0)
    acc = tl.zeros((ROWS, COLS), tl.float32)
    if STAGES == 0:
        for i in tl.static_range(PER // BK):
            acc = tl.dot(tl.load(source + i * BK, live, 0.0), whole[i], acc)
    else:
        for k in tl.range(0, PER, BK, num_stages=STAGES):
            acc = tl.dot(tl.load(source + k, live, 0.0), tl.load(weight + k), acc)
    let_next_start(CHAIN, RELEASE)
    last = True
    if SPLIT > 1:
        tl.store(scratch + part * ROWS * WIDTH + at, acc, live)
        tl.debug_barrier()
        last = tl.atomic_add(tickets + tile, 1, sem='acq_rel') == SPLIT - 1
    if last:
        if SPLIT > 1:
            acc = tl.zeros((ROWS, COLS), tl.float32)
            for other in tl.static_range(SPLIT):
                there = scratch + other * ROWS * WIDTH + at
                acc += tl.load(there, live, 0.0, cache_modifier='.cg')
            tl.store(tickets + tile, 0)
        value = before + acc * gain[None, :]
        _write_stream(
            value, x, ahead, scaled, squares, inverse, tile, rows, columns, FP8, LIVE, ROWS, WIDTH
        )


@triton.jit
def begin(
    latent,
    w,
    bias,
    factor,
    x,
    scaled,
    squares,
    inverse,
    FP8: tl.constexpr,
    CHAIN: tl.constexpr,
    TOUCH: tl.constexpr,
    RELEASE: tl.constexpr,
    A: tl.constexpr,
    WIDTH: tl.constexpr,
    LIVE: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """Latent [ROWS, A] -> stream; a program is COLS columns."""
    tile = tl.program_id(0)
    rows = tl.arange(0, ROWS)
    columns = tile * COLS + tl.arange(0, COLS)
    inner = tl.arange(0, A)
    weight = tl.load(w + columns[None, :] * A + inner[:, None])
    ahead = tl.load(factor + columns)
    wait_for_inputs(CHAIN, RELEASE)
    source = tl.load(latent + rows[:, None] * A + inner[None, :])
    value = tl.dot(source, weight, input_precision='tf32x3') + tl.load(bias + columns)[None, :]
    _write_stream(
        value, x, ahead, scaled, squares, inverse, tile, rows, columns, FP8, LIVE, ROWS, WIDTH
    )


@triton.jit
def euler(
    scaled,
    w,
    shift,
    squares,
    latent,
    target,
    dt,
    CHAIN: tl.constexpr,
    TOUCH: tl.constexpr,
    RELEASE: tl.constexpr,
    K: tl.constexpr,
    A: tl.constexpr,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Target = latent + dt * velocity; a program is BM rows."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.arange(0, A)
    ks = tl.arange(0, BK)
    wait_for_inputs(CHAIN, RELEASE)
    acc = tl.zeros((BM, A), tl.float32)
    for k in tl.range(0, K, BK, num_stages=STAGES):
        tile = tl.load(scaled + rows[:, None] * K + k + ks[None, :])
        acc = tl.dot(tile, tl.load(w + columns[None, :] * K + k + ks[:, None]), acc)
    at = tl.arange(0, PARTS)[:, None] * ROWS + rows[None, :]
    row_scale = tl.rsqrt(tl.sum(tl.load(squares + at), 0) / K + EPS)
    velocity = acc * row_scale[:, None] + tl.load(shift + columns)[None, :]
    place = rows[:, None] * A + columns[None, :]
    tl.store(target + place, tl.load(latent + place) + dt * velocity)
