"""What a level of a pixel, 0 to 255, is to the network."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.datatypes import Float32Array, Uint8Array
from vla_trt_ros.errors import ConfigError

# 0..255 -> -1..1, looked up instead of computed; 0, the pad, becomes -1.
SCALE: Float32Array = (np.arange(256) / 255.0 * 2.0 - 1.0).astype(np.float32)
SCALE.flags.writeable = False

Words = NDArray[np.uint16] | NDArray[np.uint32]


def level_words(dtype: str) -> Words:
    """The bits of `SCALE` [256] in 'float32', 'float16' or 'bfloat16', rounded to nearest even.

    ConfigError for another dtype.
    """
    if dtype == 'float32':
        return SCALE.view(np.uint32)
    if dtype == 'float16':
        return SCALE.astype(np.float16).view(np.uint16)
    if dtype == 'bfloat16':
        bits = SCALE.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    raise ConfigError(f'pixels of {dtype!r}: choose float32, float16 or bfloat16.')


def scale_planes(image: Uint8Array, planes: Float32Array) -> None:
    """uint8 [S, S, 3] -> float32 ``planes`` [3, S, S] in [-1, 1], each plane contiguous."""
    for channel, plane in zip(cv2.split(image), planes, strict=True):
        cv2.LUT(channel, SCALE, plane)
