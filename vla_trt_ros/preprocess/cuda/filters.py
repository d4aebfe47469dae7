"""The triangle filter as Pillow rounds it, for the kernel: integer weights of 22 bits.

`preprocess/resize.triangle_filter` is the same filter in float. Pillow filters along rows, rounds
to 8 bits, then along columns, and the kernel does the same with these weights. (Pillow 13 begins
with the columns of some tall pictures: there the two may be one level apart.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.preprocess.resize import fit

WEIGHT_BITS = 22
"""Fraction bits of a weight; images.cu has the twin."""

Int32Array = NDArray[np.int32]


def filter_table(size: int, new_size: int) -> Int32Array:
    """int32 [2 + taps, new_size]: first input pixel of each output pixel, how many, the weights.

    ``taps`` is the most that any output pixel has; weights behind an output's own are zero.
    """
    scale = size / new_size
    support = max(scale, 1.0)
    centers = (np.arange(new_size) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + support + 0.5).astype(np.int64), size)
    taps = np.arange(int((last - first).max()))[:, None]
    distance = np.abs((taps + first - centers + 0.5) / support)
    weights = np.where(taps < last - first, np.clip(1.0 - distance, 0.0, None), 0.0)
    # One after the other, as Pillow adds them: a pairwise sum may round elsewhere.
    weights /= np.add.accumulate(weights, axis=0)[-1]
    integers = np.floor(weights * (1 << WEIGHT_BITS) + 0.5).astype(np.int32)
    # Taps at the rim may weigh nothing: the identity has one tap, not two.
    counts = np.where(integers > 0, taps + 1, 0).max(axis=0)
    table = np.vstack([first, counts, integers[: counts.max()]])
    return np.ascontiguousarray(table, dtype=np.int32)


def resize_levels(image: Uint8Array, height: int, width: int) -> Uint8Array:
    """What the kernel makes of RGB [h, w, 3], before scaling: uint8 [height, width, 3]. Slow."""
    new_height, new_width, top, left = fit(image.shape[0], image.shape[1], height, width)
    lines = np.swapaxes(_filtered(np.swapaxes(image, 0, 1), new_width), 0, 1)
    out = np.zeros((height, width, 3), np.uint8)
    out[top : top + new_height, left : left + new_width] = _filtered(lines, new_height)
    return out


def _filtered(image: Uint8Array, new_size: int) -> Uint8Array:
    """Along the first axis."""
    table = filter_table(image.shape[0], new_size)
    sums = np.full((new_size, *image.shape[1:]), 1 << (WEIGHT_BITS - 1), np.int64)
    for tap, weights in enumerate(table[2:]):
        rows = np.minimum(table[0] + tap, image.shape[0] - 1)  # past the end they weigh nothing
        sums += image[rows] * weights[:, None, None].astype(np.int64)
    return np.asarray(np.clip(sums >> WEIGHT_BITS, 0, 255), dtype=np.uint8)
