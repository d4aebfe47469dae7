"""The kernel's integer filter, against the float one and against Pillow itself."""

import numpy as np
import pytest
from PIL import Image

from vla_trt_ros.preprocess.cuda.filters import WEIGHT_BITS, filter_table
from vla_trt_ros.preprocess.resize import triangle_filter

PAIRS = [(640, 224), (480, 168), (7, 112), (113, 112), (1, 14), (1000, 3), (4096, 5), (112, 112)]


def dense(size, new_size):
    """The table as a matrix [new_size, size] of integers."""
    table = filter_table(size, new_size)
    first, counts, weights = table[0], table[1], table[2:]
    matrix = np.zeros((new_size, size), np.int64)
    for i in range(new_size):
        assert (weights[counts[i] :, i] == 0).all()
        matrix[i, first[i] : first[i] + counts[i]] = weights[: counts[i], i]
    return matrix


@pytest.mark.parametrize(('size', 'new_size'), PAIRS)
def test_is_the_float_filter_rounded(size, new_size):
    expected = triangle_filter(size, new_size) * (1 << WEIGHT_BITS)
    assert np.abs(dense(size, new_size) - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(('size', 'new_size'), PAIRS)
def test_a_row_is_pillow_s_to_the_bit(size, new_size):
    row = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    half = 1 << (WEIGHT_BITS - 1)
    ours = (dense(size, new_size) @ row + half) >> WEIGHT_BITS
    pillow = Image.fromarray(row[None, :]).resize((new_size, 1), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(np.clip(ours, 0, 255), np.asarray(pillow)[0])


def test_same_size_has_one_tap():
    table = filter_table(5, 5)
    assert table.tolist() == [[0, 1, 2, 3, 4], [1] * 5, [1 << WEIGHT_BITS] * 5]


def test_layout_is_what_the_kernel_reads():
    table = filter_table(4, 2)  # weights 3, 3, 1 and 1, 3, 3 of 7
    assert table.dtype == np.int32
    assert table.flags.c_contiguous
    assert table[:2].tolist() == [[0, 1], [3, 3]]
    sevenths = np.round(np.array([[3, 1], [3, 3], [1, 3]]) * (1 << WEIGHT_BITS) / 7)
    np.testing.assert_array_equal(table[2:], sevenths)
