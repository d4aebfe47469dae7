"""Boxes of a picture, cut out and stretched to a classifier's square."""

from __future__ import annotations

import math

import cv2
import numpy as np

from vla_trt_ros.datatypes import Uint8Array

MIN_SIDE = 4
"""A crop with fewer pixels than this on a side shows nothing that could be told apart."""

Corners = tuple[int, int, int, int]


def crop_corners(
    box: tuple[float, float, float, float], width: int, height: int, margin: float = 0.0
) -> Corners | None:
    """Whole pixels (left, upper, right, lower) of ``box`` with ``margin`` of its size on each
    side, cut off at the edges of a ``width`` x ``height`` picture.

    None for a box that is not finite, or that has less than MIN_SIDE pixels of the picture.
    """
    if not all(map(math.isfinite, box)):
        return None
    left, upper, right, lower = box
    wide, tall = margin * (right - left), margin * (lower - upper)
    x0, y0 = max(0, math.floor(left - wide)), max(0, math.floor(upper - tall))
    x1, y1 = min(width, math.ceil(right + wide)), min(height, math.ceil(lower + tall))
    if x1 - x0 < MIN_SIDE or y1 - y0 < MIN_SIDE:
        return None
    return x0, y0, x1, y1


def stretch(image: Uint8Array, corners: Corners, side: int) -> Uint8Array:
    """The crop at ``corners`` of uint8 [H, W, 3] as uint8 [side, side, 3]."""
    x0, y0, x1, y1 = corners
    crop = image[y0:y1, x0:x1]
    # INTER_AREA averages where it shrinks, and would leave steps where it enlarges.
    how = cv2.INTER_AREA if shrinks(corners, side) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (side, side), interpolation=how), np.uint8)


def shrinks(corners: Corners, side: int) -> bool:
    """Whether the crop loses pixels both ways on its way to ``side``."""
    x0, y0, x1, y1 = corners
    return min(x1 - x0, y1 - y0) >= side
