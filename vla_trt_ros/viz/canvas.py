"""One video frame: the cameras side by side, named, a caption below, at times a mark across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vla_trt_ros.datatypes import Uint8Array

_GAP, _LINE, _STRIP = 4, 20, 26
_CAPTION = 2 * _LINE + 6
_BACKGROUND, _INK, _FAINT = (24, 26, 30), (235, 235, 235), (150, 155, 165)
GOOD, NEWS = (30, 120, 60), (40, 90, 160)
"""Colours of a mark: something went well, something new begins."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A few words on a coloured strip over the pictures, framed in the same colour."""

    text: str
    colour: tuple[int, int, int]
    """RGB, dark enough for white letters."""


class Canvas:
    """Draws frames of one fixed size for ``views``; each view has a tile of ``tile`` pixels."""

    def __init__(self, views: Sequence[str], tile: tuple[int, int] = (224, 224)) -> None:
        self._views = tuple(views)
        self._tile = tile
        width = len(self._views) * (tile[0] + _GAP) + _GAP
        height = tile[1] + 2 * _GAP + _CAPTION
        # Video codecs halve the colour's resolution: both sides must be even.
        self.size = (width + width % 2, height + height % 2)
        """Width and height in pixels."""
        self._font = ImageFont.load_default(14)
        self._small = ImageFont.load_default(11)

    def draw(
        self, images: Mapping[str, Uint8Array], caption: str, mark: Mark | None = None
    ) -> Uint8Array:
        """``images``: view -> uint8 [H, W, 3] RGB, of any size; a view without one says so.
        ``caption``: a line, or two.

        Returns uint8 [height, width, 3], RGB.
        """
        page = Image.new('RGB', self.size, _BACKGROUND)
        pen = ImageDraw.Draw(page)
        for k, view in enumerate(self._views):
            x = _GAP + k * (self._tile[0] + _GAP)
            if view in images:
                picture = _fit(images[view], self._tile)
                dx = (self._tile[0] - picture.width) // 2
                dy = (self._tile[1] - picture.height) // 2
                page.paste(picture, (x + dx, _GAP + dy))
            else:
                centre = (x + self._tile[0] // 2, _GAP + self._tile[1] // 2)
                pen.text(centre, 'no image', _FAINT, self._font, anchor='mm')
            box = pen.textbbox((x + 5, _GAP + 4), view, self._small)
            pen.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), _BACKGROUND)
            pen.text((x + 5, _GAP + 4), view, _INK, self._small)
        lines = caption.split('\n')[:2]
        middle = self._tile[1] + 2 * _GAP + (_CAPTION - (len(lines) - 1) * _LINE) // 2
        for k, line in enumerate(lines):
            at = (_GAP + 3, middle + k * _LINE)
            pen.text(at, self._shorten(line), _INK, self._font, anchor='lm')
        if mark is not None:
            self._draw_mark(pen, mark)
        return np.asarray(page)

    def _draw_mark(self, pen: ImageDraw.ImageDraw, mark: Mark) -> None:
        right, bottom = self.size[0] - 1, self._tile[1] + 2 * _GAP - 1
        pen.rectangle((0, 0, right, bottom), outline=mark.colour, width=_GAP)
        pen.rectangle((0, bottom - _STRIP, right, bottom), mark.colour)
        at = (self.size[0] // 2, bottom - _STRIP // 2)
        pen.text(at, self._shorten(mark.text), 'white', self._font, anchor='mm')

    def _shorten(self, caption: str) -> str:
        room = self.size[0] - 2 * _GAP - 6
        if self._font.getlength(caption) <= room:
            return caption
        while caption and self._font.getlength(caption + '...') > room:
            caption = caption[:-1]
        return caption + '...'


def _fit(image: Uint8Array, tile: tuple[int, int]) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = min(tile[0] / picture.width, tile[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BILINEAR)
