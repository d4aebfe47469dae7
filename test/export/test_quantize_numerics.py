"""Weights in few bits, against slow oracles."""

import numpy as np
import pytest

ml_dtypes = pytest.importorskip('ml_dtypes', reason="workshop only: pip install '.[export]'")
pytest.importorskip('onnx', reason="workshop only: pip install '.[export]'")

from vla_trt_ros.errors import BundleError  # noqa: E402
from vla_trt_ros.export.quantize.numerics import (  # noqa: E402
    as_float32,
    block_of,
    fp4_tensor_scale,
    to_fp8,
    to_int4,
    to_int8,
    to_nvfp4,
)
from vla_trt_ros.export.quantize.smooth import smoothing  # noqa: E402

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def weight(rows=256, columns=24, seed=0):
    """Columns of very different size, one all zeros, a row that stands out."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((rows, columns)) * np.geomspace(1e-3, 30, columns)
    w[:, 5] = 0
    w[7] *= 6
    return w.astype(np.float32)


def wide(array):
    return np.asarray(array, np.float32)


def test_fp8_has_a_scale_per_column_and_rounds_to_e4m3():
    w = weight()
    q = to_fp8(w, 'float32')
    assert q.values.dtype == ml_dtypes.float8_e4m3fn
    assert q.scales.shape == (24,)
    back = wide(q.values) * wide(q.scales)
    largest = np.abs(w).max(axis=0)
    # 3 bits of mantissa: at most 1/16 of the number, or half the smallest subnormal of the column.
    allowed = np.maximum(np.abs(w) / 16, largest / 448 * 2**-10)
    assert (np.abs(back - w) <= allowed * 1.001).all()
    assert wide(q.values).max(axis=0)[3] == pytest.approx(448, rel=0.2)


def test_int8_is_symmetric_and_off_by_half_a_step_at_most():
    w = weight()
    q = to_int8(w, 'float32')
    assert q.values.min() >= -127
    step = np.abs(w).max(axis=0) / 127
    assert (np.abs(wide(q.values) * wide(q.scales) - w) <= step / 2 * 1.001 + 1e-12).all()


@pytest.mark.parametrize('quantize', [to_fp8, to_int8])
def test_scales_are_rounded_before_the_weights_are(quantize):
    w = weight()
    q = quantize(w, 'bfloat16')
    assert q.scales.dtype == ml_dtypes.bfloat16
    scales = wide(q.scales)
    if quantize is to_int8:
        nearest = np.clip(np.rint(w.astype(np.float64) / scales), -127, 127)
        assert np.abs(nearest - wide(q.values)).max() <= 1  # a tie may fall either way
        assert (nearest == wide(q.values)).mean() > 0.999


def test_a_column_of_zeros_stays_zero():
    for quantize in (to_fp8, to_int8, to_int4, to_nvfp4):
        q = quantize(weight(), 'bfloat16')
        assert (wide(q.values)[:, 5] == 0).all()
        assert np.isfinite(wide(q.scales)).all()


def test_int4_scales_blocks_of_128_rows_or_what_divides_them():
    assert to_int4(weight(256), 'bfloat16').scales.shape == (2, 24)
    assert to_int4(weight(192), 'bfloat16').scales.shape == (3, 24)
    assert block_of(2048, 128) == 128
    with pytest.raises(BundleError, match='24 rows cannot be cut into blocks of 16'):
        block_of(24, 128)


def test_int4_is_better_than_scaling_by_the_largest_weight():
    w = weight()
    q = to_int4(w, 'float32')
    scales = np.repeat(wide(q.scales), 128, axis=0)
    back = wide(q.values) * scales
    plain = np.repeat(np.abs(w.reshape(2, 128, -1)).max(axis=1) / 7, 128, axis=0)
    plain[plain == 0] = 1
    naive = np.clip(np.rint(w / plain), -8, 7) * plain
    error, before = (np.square(x - w).sum(axis=0) for x in (back, naive))
    assert (error <= before * 1.0001).all()
    assert error.sum() < 0.9 * before.sum()
    assert wide(q.values).min() >= -8
    assert wide(q.values).max() <= 7


def test_nvfp4_against_a_search_of_the_grid():
    w = weight()
    q = to_nvfp4(w, 'float32')
    assert q.values.dtype == ml_dtypes.float4_e2m1fn
    assert q.scales.dtype == ml_dtypes.float8_e4m3fn
    assert q.scales.shape == (16, 24)
    assert wide(q.scales).max() == 448
    scales = np.repeat(wide(q.scales), 16, axis=0) * float(q.tensor_scale)
    grid = np.concatenate([-E2M1[::-1], E2M1])
    for i, j in [(0, 0), (7, 20), (255, 23), (100, 11), (31, 5)]:
        distance = np.abs(grid * scales[i, j] - w[i, j]).min()
        found = abs(float(q.values[i, j]) * scales[i, j] - w[i, j])
        assert found <= distance * 1.001 + 1e-12


def test_a_tensor_of_zeros_has_a_scale():
    assert fp4_tensor_scale(0.0, 'bfloat16') == 1
    q = to_nvfp4(np.zeros((32, 4), np.float32), 'bfloat16')
    assert (wide(q.values) == 0).all()


@pytest.mark.parametrize(('value', 'count'), [(np.nan, 1), (np.inf, 2), (-np.inf, 3)])
def test_weights_that_are_not_numbers_are_counted_and_refused(value, count):
    w = weight().astype(ml_dtypes.bfloat16)
    w[3 : 3 + count, 2] = value
    with pytest.raises(BundleError, match=f"weight 'q_proj' holds {count} NaN or Inf of 6144"):
        as_float32('q_proj', w)


def product_error(x, w, divisors):
    """Relative error of x @ w when both are rounded to int8, one scale for x."""
    x, w = x / divisors, w * divisors[:, None]
    step = np.abs(x).max() / 127
    q = to_int8(w.astype(np.float32), 'float32')
    rounded = np.rint(x / step) * step @ (wide(q.values) * wide(q.scales))
    exact = x @ w
    return np.linalg.norm(rounded - exact) / np.linalg.norm(exact)


def test_smoothing_pays_where_a_channel_is_loud_and_is_left_out_where_none_is():
    rng = np.random.default_rng(1)
    w = rng.standard_normal((64, 48)).astype(np.float32)
    x = rng.standard_normal((200, 64))
    x[:, [3, 40]] *= 60
    divisors = smoothing(np.abs(x).max(axis=0).astype(np.float32), w)
    assert divisors is not None
    plain = product_error(x, w, np.ones(64))
    assert product_error(x, w, divisors) < 0.6 * plain
    assert smoothing(np.ones(64, np.float32), np.sign(w)) is None
    assert smoothing(np.zeros(64, np.float32), w) is None
