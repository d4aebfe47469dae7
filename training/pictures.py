"""Scenes in a device's memory, and what an update sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scenes import Scene
from torch import Tensor
from torch.nn import functional as F

from vla_trt_ros.preprocess.letterbox import GREY, draw_letterbox, letterbox


@dataclass(slots=True)
class Pictures:
    """``images`` uint8 [N, 3, side, side]; ``boxes`` float32 [N, C, 4] in pixels of it, one of
    each label, and ``valid`` bool [N, C]: whether the label is in the picture.
    """

    images: Tensor
    boxes: Tensor
    valid: Tensor

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """``count`` pictures, those with a rare label more often than others."""
        share = self.valid.float().mean(dim=0).clamp(min=1e-3)
        rarity = (self.valid / share).amax(dim=1).clamp(min=1.0) ** 0.75
        rows = torch.multinomial(rarity, count, replacement=True)
        return self.images[rows], self.boxes[rows], self.valid[rows]


def load_pictures(scenes: Sequence[Scene], side: int, device: str) -> Pictures:
    """``scenes`` fitted into squares as at run time. A scene has one object of a label at most."""
    count, labels = len(scenes), len(scenes[0].names)
    images = np.empty((count, side, side, 3), np.uint8)
    boxes = np.zeros((count, labels, 4), np.float32)
    valid = np.zeros((count, labels), bool)
    for i, scene in enumerate(scenes):
        place = letterbox(scene.image.shape[1], scene.image.shape[0], side)
        draw_letterbox(scene.image, place, images[i])
        boxes[i, scene.labels] = place.to_square(scene.boxes)
        valid[i, scene.labels] = True
    return Pictures(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device),
        torch.from_numpy(boxes).to(device),
        torch.from_numpy(valid).to(device),
    )


class Augmentation:
    """Mirrors, moves, scales, dims and tints each picture by chance."""

    flip, scale, shift = 0.5, (0.75, 1.35), 0.15
    contrast, brightness, colour = 0.3, 0.12, 0.08
    least = 0.3
    """An object of which less than this share stays in the picture is no object any more."""

    def __init__(self, side: int) -> None:
        self._side = side

    def __call__(
        self, images: Tensor, boxes: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Pictures.draw` gives them -> images float32 0 to 1, boxes and valid of the same."""
        count, device, side = len(images), images.device, self._side

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return torch.rand(shape, device=device) * (high - low) + low

        zoom = uniform(*self.scale, count)
        mirror = torch.where(torch.rand(count, device=device) < self.flip, -1.0, 1.0)
        move = uniform(-self.shift, self.shift, count, 2) * 2  # of the picture, -1 to 1
        theta = torch.zeros(count, 2, 3, device=device)
        theta[:, 0, 0], theta[:, 1, 1] = mirror / zoom, 1 / zoom
        theta[:, 0, 2], theta[:, 1, 2] = -move[:, 0] * mirror / zoom, -move[:, 1] / zoom
        grid = F.affine_grid(theta, [count, 3, side, side], align_corners=False)
        grey = GREY / 255
        x = F.grid_sample(images.float() / 255 - grey, grid, align_corners=False) + grey

        moved = boxes * (2 / side) - 1
        across = moved[..., 0::2] * (mirror * zoom)[:, None, None] + move[:, None, :1]
        down = moved[..., 1::2] * zoom[:, None, None] + move[:, None, 1:]
        across, down = across.sort(dim=2).values, down.sort(dim=2).values
        moved = torch.stack((across[..., 0], down[..., 0], across[..., 1], down[..., 1]), dim=2)
        moved = (moved + 1) * (side / 2)
        inside = moved.clamp(0, side)
        least = self.least * _area(moved)
        small = (inside[..., 2:] - inside[..., :2]).amin(dim=2) < 3
        valid = valid & (_area(inside) >= least) & ~small

        x = (x - 0.5) * (1 + uniform(-self.contrast, self.contrast, count, 1, 1, 1)) + 0.5
        x = x + uniform(-self.brightness, self.brightness, count, 1, 1, 1)
        x = x + uniform(-self.colour, self.colour, count, 3, 1, 1)
        return x.clamp(0, 1), inside, valid


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)
