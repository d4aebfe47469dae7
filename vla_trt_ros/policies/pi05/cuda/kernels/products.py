"""A product with what follows it in one kernel, where that beats the library's product."""

import triton
import triton.language as tl

from vla_trt_ros.policies.pi05.cuda.kernels.common import (
    gelu_tanh,
    gelu_tanh_fast,
    stored,
    wait_for_inputs,
)


@triton.jit
def geglu_product(
    a,
    weight,
    out,
    scale,
    act_scale,
    result,
    inverse,
    count,
    width,
    depth,
    FP8: tl.constexpr,
    CHAIN: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    """gelu(a @ gates.T) * (a @ ups.T): [count, width / 2], where gates and ups are the ``width``
    rows of ``weight`` in turn. ``a``, ``weight`` and ``out`` are descriptors of blocks. GROUP
    tiles of rows use a tile of weights while it is in L2.
    """
    tiles_m, tiles_n = tl.cdiv(count, BM), tl.cdiv(width, BN)
    wait_for_inputs(CHAIN, 2)
    quantum = 1.0
    if FP8:
        quantum = tl.load(scale) * tl.load(act_scale) * result
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        first = tile // (GROUP * tiles_n) * GROUP
        rows = min(tiles_m - first, GROUP)
        i = first + tile % (GROUP * tiles_n) % rows
        j = tile % (GROUP * tiles_n) // rows
        sums = tl.zeros((BM, BN), tl.float32)
        for k in range(tl.cdiv(depth, BK)):
            x = a.load([i * BM, k * BK])
            y = weight.load([j * BN, k * BK])
            sums = tl.dot(x, y.T, sums)
        gate, up = tl.split(tl.reshape(sums * quantum, (BM, BN // 2, 2)))
        gate = gelu_tanh_fast(gate) if FP8 else gelu_tanh(gate)
        out.store([i * BM, j * (BN // 2)], stored(gate * up, inverse, FP8).to(out.dtype))
