"""All frames in the GPU's memory, the oldest overwritten, and what an update sees of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from recipe import Recipe
from torch import Tensor

from vla_trt_ros.preprocess.normalize import NormStats


@dataclass(slots=True)
class Batch:
    """Observations and labels in robot units."""

    images: Tensor
    """uint8 [B, V, S, S, 3]."""
    state: Tensor
    """float32 [B, 4]."""
    label: Tensor
    """float32 [B, H, 4], absolute targets."""
    task: Tensor
    """int64 [B]."""


class FrameStore:
    """A ring of ``capacity`` frames on ``device``."""

    def __init__(self, capacity: int, views: int, size: int, rows: int, device: torch.device):
        self._images = torch.empty(
            (capacity, views, size, size, 3), dtype=torch.uint8, device=device
        )
        self._state = torch.empty((capacity, 4), device=device)
        self._label = torch.empty((capacity, rows, 4), device=device)
        self._task = torch.empty(capacity, dtype=torch.long, device=device)
        self._capacity = capacity
        self._next = 0
        self.count = 0
        """Frames that are there."""
        self.added = 0
        """Frames that ever came."""

    def add(self, episode: dict[str, np.typing.NDArray[np.generic]]) -> None:
        """Take the frames of an episode as `collect.save_episode` wrote them."""
        count = len(episode['state'])
        first = self._next if self._next + count <= self._capacity else 0
        where = slice(first, first + count)
        for name, target in (('images', self._images), ('state', self._state)):
            target[where] = torch.from_numpy(episode[name]).to(target.device)
        self._label[where] = torch.from_numpy(episode['label']).to(self._label.device)
        self._task[where] = int(episode['task'])
        self._next = first + count
        self.count = max(self.count, self._next)
        self.added += count

    def draw(self, size: int) -> Batch:
        """Frames drawn at random, each as likely."""
        rows = torch.randint(self.count, (size,), device=self._images.device)
        return Batch(
            self._images[rows],
            self._state[rows],
            self._label[rows],
            self._task[rows],
        )

    def statistics(self) -> dict[str, NormStats]:
        """Of the frames that are there: state, and actions with the hand's as deltas."""
        state = self._state[: self.count].double().cpu().numpy()
        actions = relative(self._label[: self.count], self._state[: self.count])
        flat = actions.flatten(0, 1).double().cpu().numpy()
        return {'state': _stats(state), 'actions': _stats(flat)}


def relative(label: Tensor, state: Tensor) -> Tensor:
    """Absolute targets [B, H, 4] -> the policy's columns: three deltas, the gripper as it is."""
    base = torch.cat((state[:, :3], torch.zeros_like(state[:, 3:])), dim=1)
    return label - base[:, None]


class Augmentation:
    """Moves, dims and tints each view of each frame by chance."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [B, V, S, S, 3] -> float32 [B, V, 3, S, S] in [-1, 1]."""
        r, device = self._recipe, images.device
        batch, views, size = images.shape[:3]
        flat = images.flatten(0, 1)
        count = batch * views
        shift = torch.randint(-r.shift, r.shift + 1, (2, count, 1), device=device)
        steps = torch.arange(size, device=device)
        ys = (steps + shift[0]).clamp(0, size - 1)
        xs = (steps + shift[1]).clamp(0, size - 1)
        index = torch.arange(count, device=device)
        moved = flat[index[:, None, None], ys[:, :, None], xs[:, None, :]]
        x = moved.permute(0, 3, 1, 2).float() / 127.5 - 1.0

        def spread(width: float, *shape: int) -> Tensor:
            return (torch.rand(shape, device=device) * 2.0 - 1.0) * width

        x = x * (1.0 + spread(r.contrast, count, 1, 1, 1))
        x = x + spread(r.brightness, count, 1, 1, 1) + spread(r.colour, count, 3, 1, 1)
        return x.clamp(-1.0, 1.0).unflatten(0, (batch, views))


def _stats(values: np.typing.NDArray[np.float64]) -> NormStats:
    low, high = np.quantile(values, (0.01, 0.99), axis=0)
    return NormStats(values.mean(0), values.std(0), low, high)
