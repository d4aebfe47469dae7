"""Resize with pad: the whole picture in a square, its shape kept, black bars around it.

The filter is a triangle as wide as the shrinkage (antialiased bilinear), which is what Pi0.5's
checkpoints were trained with. Pillow's is that filter in 8-bit fixed point; OpenCV's bilinear is
not, and aliases. `resize_reference` is the same arithmetic in float, for tests and for the GPU.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from vla_trt_ros.datatypes import Float32Array, Float64Array, Uint8Array
from vla_trt_ros.errors import BadImage


def resize_with_pad(image: Uint8Array, height: int, width: int) -> Uint8Array:
    """uint8 RGB [h, w, 3] -> uint8 [height, width, 3], a new array unless nothing changes.

    Raises BadImage for an image without pixels.
    """
    if image.shape[:2] == (height, width):
        return image
    new_height, new_width, top, left = fit(image.shape[0], image.shape[1], height, width)
    # Pillow reads whole rows; a view of a padded message is copied here, once.
    source = Image.fromarray(np.ascontiguousarray(image))
    scaled = source.resize((new_width, new_height), Image.Resampling.BILINEAR)
    if (new_height, new_width) == (height, width):
        return np.asarray(scaled)
    out = np.zeros((height, width, 3), np.uint8)
    out[top : top + new_height, left : left + new_width] = np.asarray(scaled)
    return out


def fit(h: int, w: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Where an h x w image lands in height x width: (new height, new width, top, left)."""
    if h < 1 or w < 1:
        raise BadImage(f'image of {w} x {h} pixels has nothing to resize.')
    ratio = max(w / width, h / height)
    new_height, new_width = max(1, int(h / ratio)), max(1, int(w / ratio))
    return new_height, new_width, (height - new_height) // 2, (width - new_width) // 2


def resize_reference(image: Uint8Array, height: int, width: int) -> Float32Array:
    """`resize_with_pad` without rounding: float32 [height, width, 3], 0 to 255. Slow."""
    new_height, new_width, top, left = fit(image.shape[0], image.shape[1], height, width)
    rows = triangle_filter(image.shape[0], new_height)
    columns = triangle_filter(image.shape[1], new_width)
    scaled = np.einsum('yh,hwc,xw->yxc', rows, image.astype(np.float64), columns, optimize=True)
    out = np.zeros((height, width, 3), np.float32)
    out[top : top + new_height, left : left + new_width] = scaled
    return out


def triangle_filter(size: int, new_size: int) -> Float64Array:
    """Weights [new_size, size] of each input pixel in each output pixel; rows sum to 1."""
    scale = size / new_size
    support = max(scale, 1.0)
    centers = (np.arange(new_size) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centers[:, None]) / support
    weights = np.clip(1.0 - distance, 0.0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
