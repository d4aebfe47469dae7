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
    """gelu(a @ gates.T) * (a @ ups.T): [count, width]. Gates are the first ``width`` rows of
    ``weight``, ups the others; all three are descriptors of blocks. GROUP tiles of rows share a
    tile of weights while it is in L2.
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
        gate = tl.zeros((BM, BN), tl.float32)
        up = tl.zeros((BM, BN), tl.float32)
        for k in range(tl.cdiv(depth, BK)):
            x = a.load([i * BM, k * BK])
            g = weight.load([j * BN, k * BK])
            u = weight.load([width + j * BN, k * BK])
            gate = tl.dot(x, g.T, gate)
            up = tl.dot(x, u.T, up)
        gate = gate * quantum
        up = up * quantum
        gate = gelu_tanh_fast(gate) if FP8 else gelu_tanh(gate)
        value = stored(gate * up, inverse, FP8)
        out.store([i * BM, j * BN], value.to(out.dtype))
