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
    if encoding.even and (frame.width % 2 or frame.height % 2):
        raise BadImage(f'{frame.encoding} image of {frame.width} x {frame.height}: must be even.')
    shape: tuple[int, ...] = (frame.height, frame.width)
    strides: tuple[int, ...] = (frame.step, encoding.channels)
    if encoding.channels > 1:
        shape, strides = (*shape, encoding.channels), (*strides, 1)
    rows = np.lib.stride_tricks.as_strided(frame.data, shape, strides, writeable=False)
    return encoding.to_rgb(rows)


def _decompress(frame: CameraFrame) -> Uint8Array:
    # OpenCV warns on stderr and returns None for broken files; it never raises for them.
    pixels = cv2.imdecode(frame.data, cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise BadImage(f'{frame.encoding} image of {frame.data.size} bytes does not decode.')
    return np.asarray(pixels, dtype=np.uint8)
