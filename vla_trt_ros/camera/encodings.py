"""The table of raw image encodings: sensor_msgs/image_encodings names, how many bytes a pixel has,
and how to reach RGB. A new encoding is one row here and one row in its test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.errors import UnknownEncoding

COMPRESSED = ('jpeg', 'png')
"""CompressedImage formats."""


def _keep(rows: Uint8Array) -> Uint8Array:
    return rows


def _cv(code: int) -> Callable[[Uint8Array], Uint8Array]:
    def convert(rows: Uint8Array) -> Uint8Array:
        return np.asarray(cv2.cvtColor(rows, code), dtype=np.uint8)

    return convert


@dataclass(frozen=True, slots=True)
class Encoding:
    """One encoding: uint8 pixels of ``channels`` bytes, and the way from them to RGB.

    ``to_rgb`` takes uint8 [H, W, channels] (or [H, W] for one channel; rows may be padded, so not
    contiguous) and gives uint8 [H, W, 3].
    """

    channels: int
    to_rgb: Callable[[Uint8Array], Uint8Array]
    even: bool = False
    """Width (4:2:2) or width and height (Bayer) must be even."""

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes of one pixel in a row."""
        return self.channels


# ROS names a Bayer pattern by its first two rows; OpenCV by the second row's second and third
# pixel, so that ROS's rggb is OpenCV's BG.
ENCODINGS: dict[str, Encoding] = {
    'rgb8': Encoding(3, _keep),
    'bgr8': Encoding(3, _cv(cv2.COLOR_BGR2RGB)),
    'rgba8': Encoding(4, _cv(cv2.COLOR_RGBA2RGB)),
    'bgra8': Encoding(4, _cv(cv2.COLOR_BGRA2RGB)),
    'mono8': Encoding(1, _cv(cv2.COLOR_GRAY2RGB)),
    '8UC1': Encoding(1, _cv(cv2.COLOR_GRAY2RGB)),
    '8UC3': Encoding(3, _cv(cv2.COLOR_BGR2RGB)),
    'yuv422': Encoding(2, _cv(cv2.COLOR_YUV2RGB_UYVY), even=True),
    'uyvy': Encoding(2, _cv(cv2.COLOR_YUV2RGB_UYVY), even=True),
    'yuv422_yuy2': Encoding(2, _cv(cv2.COLOR_YUV2RGB_YUY2), even=True),
    'yuyv': Encoding(2, _cv(cv2.COLOR_YUV2RGB_YUY2), even=True),
    'bayer_rggb8': Encoding(1, _cv(cv2.COLOR_BayerBG2RGB), even=True),
    'bayer_bggr8': Encoding(1, _cv(cv2.COLOR_BayerRG2RGB), even=True),
    'bayer_gbrg8': Encoding(1, _cv(cv2.COLOR_BayerGR2RGB), even=True),
    'bayer_grbg8': Encoding(1, _cv(cv2.COLOR_BayerGB2RGB), even=True),
}


def raw_encoding(name: str) -> Encoding:
    """The row of encoding ``name``; UnknownEncoding lists the known ones."""
    encoding = ENCODINGS.get(name)
    if encoding is None:
        raise UnknownEncoding(
            f'encoding {name!r} is unknown; known: {", ".join(ENCODINGS)}. '
            f'Set the camera driver to one of them, or install cv_bridge.'
        )
    return encoding
