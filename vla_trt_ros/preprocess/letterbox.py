"""A picture in a square as detectors are trained with: shape kept, centred, grey around it; and
the way back from the square to the picture.

Byte for byte what ultralytics does (LetterBox with auto off, OpenCV's bilinear filter, grey 114).
Pi0.5's resize.py is another filter, rounding and colour: the two are not interchangeable.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vla_trt_ros.datatypes import Float32Array, Uint8Array
from vla_trt_ros.errors import BadImage

GREY = 114


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where a picture of ``width`` x ``height`` lies in a square of ``side`` pixels."""

    width: int
    height: int
    side: int
    new_width: int
    new_height: int
    left: int
    top: int

    def to_picture(self, boxes: Float32Array) -> Float32Array:
        """Boxes [N, 4] (left, upper, right, lower) of the square in pixels of the picture, cut
        off at its edges. A new array.
        """
        limits = np.array((self.width, self.height) * 2, np.float32)
        return np.asarray(np.clip((boxes - self._offset) / self._gain, 0.0, limits), np.float32)

    def to_square(self, boxes: Float32Array) -> Float32Array:
        """The inverse of `to_picture` for boxes inside the picture. A new array."""
        return np.asarray(boxes * self._gain + self._offset, np.float32)

    @property
    def _gain(self) -> Float32Array:
        # Each side was rounded to whole pixels on its own.
        gain = (self.new_width / self.width, self.new_height / self.height)
        return np.array(gain * 2, np.float32)

    @property
    def _offset(self) -> Float32Array:
        return np.array((self.left, self.top) * 2, np.float32)


def letterbox(width: int, height: int, side: int) -> Letterbox:
    """Place a picture. BadImage for one without pixels."""
    if width < 1 or height < 1:
        raise BadImage(f'image of {width} x {height} pixels has nothing to resize.')
    gain = min(side / height, side / width)
    # A picture thinner than a pixel of the square still gets one.
    new_width, new_height = max(1, round(width * gain)), max(1, round(height * gain))
    left = round((side - new_width) / 2 - 0.1)
    top = round((side - new_height) / 2 - 0.1)
    return Letterbox(width, height, side, new_width, new_height, left, top)


def draw_letterbox(image: Uint8Array, place: Letterbox, square: Uint8Array) -> None:
    """Write ``image``, uint8 [height, width, 3], into ``square``, uint8 [side, side, 3]."""
    if (place.new_height, place.new_width) != image.shape[:2]:
        size = (place.new_width, place.new_height)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    bottom, right = place.top + place.new_height, place.left + place.new_width
    square[: place.top] = square[bottom:] = GREY
    square[place.top : bottom, : place.left] = GREY
    square[place.top : bottom, right:] = GREY
    square[place.top : bottom, place.left : right] = image
