"""The table of raw image encodings: sensor_msgs/image_encodings names, how many bytes a pixel has,
and how to reach RGB, on the processor and on a GPU. A new encoding is one row here and one row in
its test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.errors import UnknownEncoding
from vla_trt_ros.gpu_frame import PixelFamily, PixelLayout

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
    contiguous) and gives uint8 [H, W, 3]. ``where`` says the same to the GPU's kernel (see
    `PixelLayout`).
    """

    channels: int
    to_rgb: Callable[[Uint8Array], Uint8Array]
    where: tuple[int, int, int]
    family: PixelFamily = PixelFamily.INTERLEAVED

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes of one pixel in a row."""
        return self.channels

    @property
    def even(self) -> bool:
        """Width and height must be even: a pair or a tile is never cut."""
        return self.family is not PixelFamily.INTERLEAVED

    @property
    def layout(self) -> PixelLayout:
        """What the GPU's kernel needs to know."""
        return PixelLayout(self.family, self.channels, self.where)


_YUV = PixelFamily.YUV422
_BAYER = PixelFamily.BAYER

# ROS names a Bayer pattern by its first two rows; OpenCV by the second row's second and third
# pixel, so that ROS's rggb is OpenCV's BG.
ENCODINGS: dict[str, Encoding] = {
    'rgb8': Encoding(3, _keep, (0, 1, 2)),
    'bgr8': Encoding(3, _cv(cv2.COLOR_BGR2RGB), (2, 1, 0)),
    'rgba8': Encoding(4, _cv(cv2.COLOR_RGBA2RGB), (0, 1, 2)),
    'bgra8': Encoding(4, _cv(cv2.COLOR_BGRA2RGB), (2, 1, 0)),
    'mono8': Encoding(1, _cv(cv2.COLOR_GRAY2RGB), (0, 0, 0)),
    '8UC1': Encoding(1, _cv(cv2.COLOR_GRAY2RGB), (0, 0, 0)),
    '8UC3': Encoding(3, _cv(cv2.COLOR_BGR2RGB), (2, 1, 0)),
    'yuv422': Encoding(2, _cv(cv2.COLOR_YUV2RGB_UYVY), (1, 0, 2), _YUV),
    'uyvy': Encoding(2, _cv(cv2.COLOR_YUV2RGB_UYVY), (1, 0, 2), _YUV),
    'yuv422_yuy2': Encoding(2, _cv(cv2.COLOR_YUV2RGB_YUY2), (0, 1, 3), _YUV),
    'yuyv': Encoding(2, _cv(cv2.COLOR_YUV2RGB_YUY2), (0, 1, 3), _YUV),
    'bayer_rggb8': Encoding(1, _cv(cv2.COLOR_BayerBG2RGB), (0, 0, 0), _BAYER),
    'bayer_bggr8': Encoding(1, _cv(cv2.COLOR_BayerRG2RGB), (1, 1, 0), _BAYER),
    'bayer_gbrg8': Encoding(1, _cv(cv2.COLOR_BayerGR2RGB), (0, 1, 0), _BAYER),
    'bayer_grbg8': Encoding(1, _cv(cv2.COLOR_BayerGB2RGB), (1, 0, 0), _BAYER),
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
