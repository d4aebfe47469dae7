"""CameraFrame -> RGB pixels on the host."""

from __future__ import annotations

import cv2
import numpy as np

from vla_trt_ros.camera.encodings import COMPRESSED, raw_encoding
from vla_trt_ros.datatypes import CameraFrame, Uint8Array
from vla_trt_ros.errors import BadImage


def to_rgb(frame: CameraFrame) -> Uint8Array:
    """uint8 [H, W, 3] RGB pixels of ``frame``.

    For rgb8 this is a view of the message (rows may be padded): read only, valid as long as the
    frame. Raises BadImage for bytes that do not decode.
    """
    if frame.encoding in COMPRESSED:
        return _decompress(frame)
    encoding = raw_encoding(frame.encoding)
    check_rows(frame.encoding, frame.height, frame.width, frame.step, frame.data.size)
    check_even(frame.encoding, frame.height, frame.width)
    shape: tuple[int, ...] = (frame.height, frame.width)
    strides: tuple[int, ...] = (frame.step, encoding.channels)
    if encoding.channels > 1:
        shape, strides = (*shape, encoding.channels), (*strides, 1)
    rows = np.lib.stride_tricks.as_strided(frame.data, shape, strides, writeable=False)
    return encoding.to_rgb(rows)


def check_rows(encoding: str, height: int, width: int, step: int, size: int) -> int:
    """Bytes of a raw image from its first to its last pixel; ``size`` is how many there are.

    Bytes behind the last pixel are allowed. Raises UnknownEncoding, and BadImage for zero size, a
    step shorter than a row, or too few bytes.
    """
    found = raw_encoding(encoding)
    if height <= 0 or width <= 0:
        raise BadImage(f'image is {width} x {height}: the driver sent no pixels.')
    row = width * found.bytes_per_pixel
    if step < row:
        raise BadImage(f'step {step} is shorter than a row of {width} {encoding} pixels ({row}).')
    # The last row may end without its padding.
    needed = step * (height - 1) + row
    if size < needed:
        raise BadImage(
            f'data holds {size} bytes, {width} x {height} {encoding} with step {step} '
            f'needs {needed}: the image is truncated.'
        )
    return needed


def check_even(encoding: str, height: int, width: int) -> None:
    """BadImage for a size that cuts a pair of pixels or a Bayer tile."""
    if raw_encoding(encoding).even and (width % 2 or height % 2):
        raise BadImage(f'{encoding} image of {width} x {height}: must be even.')


def _decompress(frame: CameraFrame) -> Uint8Array:
    # OpenCV warns on stderr and returns None for broken files; it never raises for them.
    pixels = cv2.imdecode(frame.data, cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise BadImage(f'{frame.encoding} image of {frame.data.size} bytes does not decode.')
    return np.asarray(pixels, dtype=np.uint8)
