"""The triangle filter as Pillow rounds it, for the kernel: integer weights of 22 bits.

`preprocess/resize.triangle_filter` is the same filter in float. Pillow filters along rows first,
rounds to 8 bits, then along columns; a GPU that does so with these weights gives its very levels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
