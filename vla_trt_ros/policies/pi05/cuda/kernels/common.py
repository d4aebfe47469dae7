"""What several kernels share."""

import triton
import triton.language as tl

FP8_MAX = tl.constexpr(448.0)
EPS = tl.constexpr(1e-6)


@triton.jit
def gelu_tanh(x):
    """GELU, tanh form, as a product with a sigmoid."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def gelu_tanh_fast(x):
    """The same to 2**-11 of ``x``: enough in front of FP8, in a third of the instructions."""
    inner = x * (0.7978845608028654 + 0.035677408136300125 * x * x)
    t = tl.inline_asm_elementwise(
        'tanh.approx.f32 $0, $1;', '=f,f', [inner], dtype=tl.float32, is_pure=True, pack=1
    )
    half = 0.5 * x
    return half + half * t


@triton.jit
def stored(value, inverse, FP8: tl.constexpr):
    """``value`` as the next product wants it: over its quantum and clamped, or as it is."""
    if FP8:
        value = tl.minimum(tl.maximum(value * inverse, -FP8_MAX), FP8_MAX)
    return value


@triton.jit
def wait_for_inputs(CHAIN: tl.constexpr, RELEASE: tl.constexpr):
    """Everything that the kernels before wrote is visible behind this.

    RELEASE says when the next kernel is let go: 0 in front of this, 1 behind it, 2 later.
    """
    if CHAIN:
        if RELEASE == 0:
            tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
        if RELEASE == 1:
            tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def let_next_start(CHAIN: tl.constexpr, RELEASE: tl.constexpr):
    """The next kernel may be launched; it waits for this one's end where it needs its results."""
    if CHAIN and RELEASE == 2:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def touch(start, rows, row_bytes, LINES: tl.constexpr, TOUCH: tl.constexpr):
    """Asks for ``rows`` (a vector of row numbers) x ``row_bytes`` from ``start`` to be in L2."""
    if TOUCH:
        lines = tl.arange(0, LINES) * 128
        where = start.to(tl.pointer_type(tl.uint8)) + rows[:, None].to(tl.int64) * row_bytes
        where = where + lines[None, :]
        tl.inline_asm_elementwise(
            'prefetch.global.L2 [$1]; mov.u32 $0, 0;',
            '=r,l',
            [where],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
