"""Which boxes of a scene a classifier learns from, what they show, and crops of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
from scenes import UNKNOWN, Scene

from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.preprocess.crop import crop_corners, stretch

STATES = ('closed', 'open')
OPENS = ('drawer', 'door')
"""A window is left out: an open one in the mirror is a closed one."""
SHUT, WIDE = 0.3, 0.7
"""Between the two nobody could say: those pictures are left out."""

Box = np.typing.NDArray[np.float32]


def boxes_with_state(scene: Scene, of_class: Collection[str]) -> Iterator[tuple[Box, int]]:
    """Boxes [4] of the labels ``of_class`` in ``scene``, each with its place in STATES."""
    for box, label in zip(scene.boxes, scene.labels, strict=True):
        name = scene.names[int(label)]
        state = scene.gripper if name == 'gripper' else scene.opening
        known = name in of_class and (name == 'gripper' or name in OPENS) and state != UNKNOWN
        if known and not SHUT < state < WIDE:
            yield box, int(state >= WIDE)


def cut(
    scenes: Iterable[Scene],
    of_class: Collection[str],
    side: int,
    margin: float,
    copies: int = 1,
    jitter: float = 0.0,
    seed: int = 0,
) -> tuple[Uint8Array, np.typing.NDArray[np.int64]]:
    """Crops uint8 [N, side, side, 3] and their places in STATES, int64 [N]: ``copies`` of each
    box, its edges moved at random by up to ``jitter`` of its size, as a detector might have them.
    """
    random = np.random.default_rng(seed)
    crops, states = [], []
    for scene in scenes:
        height, width = scene.image.shape[:2]
        for box, state in boxes_with_state(scene, of_class):
            size = np.tile(box[2:] - box[:2], 2)
            for _ in range(copies):
                moved = box + size * random.uniform(-jitter, jitter, 4)
                corners = crop_corners(tuple(moved.tolist()), width, height, margin)
                if corners is not None:
                    crops.append(stretch(scene.image, corners, side))
                    states.append(state)
    return np.array(crops).reshape(-1, side, side, 3), np.array(states, np.int64)
