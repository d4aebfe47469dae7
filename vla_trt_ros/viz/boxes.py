"""Boxes and their labels, drawn into a picture."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vla_trt_ros.datatypes import Uint8Array

COLOURS = (
    (230, 80, 60),
    (60, 150, 230),
    (70, 190, 110),
    (230, 170, 40),
    (170, 110, 230),
    (40, 190, 190),
    (215, 90, 160),
    (130, 140, 40),
    (90, 110, 210),
    (160, 110, 70),
    (100, 180, 60),
)
_LARGEST_FONT, _SMALLEST_FONT = 22, 10


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the picture, and the words at its upper edge."""

    left: float
    upper: float
    right: float
    lower: float
    text: str
    label: str
    """Boxes of one label have one colour."""


def colour_of(label: str) -> tuple[int, int, int]:
    """RGB, the same for a label in every picture."""
    return COLOURS[zlib.crc32(label.encode()) % len(COLOURS)]


def draw_boxes(picture: Uint8Array, boxes: Iterable[Box]) -> Uint8Array:
    """A copy of ``picture``, uint8 [H, W, 3] RGB, with ``boxes`` on it, the last ones on top."""
    page = Image.fromarray(np.ascontiguousarray(picture))
    pen = ImageDraw.Draw(page)
    size = max(_SMALLEST_FONT, min(_LARGEST_FONT, page.height // 22))
    font = ImageFont.load_default(size)
    for box in boxes:
        colour = colour_of(box.label)
        corners = (
            box.left,
            box.upper,
            max(box.right - 1, box.left),
            max(box.lower - 1, box.upper),
        )
        pen.rectangle(corners, outline=colour, width=max(1, size // 7))
        left, upper, right, lower = pen.textbbox((0, 0), box.text, font)
        width, height = right - left + 4, lower - upper + 4
        # Above the box where there is room, inside it otherwise, and never outside the picture.
        x = max(0.0, min(box.left, page.width - width))
        y = box.upper - height if box.upper >= height else max(0.0, box.upper)
        pen.rectangle((x, y, x + width, y + height), fill=colour)
        pen.text((x + 2 - left, y + 2 - upper), box.text, 'white', font)
    return np.asarray(page)
