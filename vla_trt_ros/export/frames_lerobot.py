"""Observations from a LeRobot data set. One of v3.0 with images, as ``vla-trt sim record`` writes
it, is read here; one with videos, or of another version, needs the package lerobot.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vla_trt_ros.bundle import Bundle
from vla_trt_ros.datatypes import Observation, Uint8Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.frames import Frames, is_judged, observation, raw_frame, spread

_IMAGES = 'observation.images.'


def lerobot_frames(path: Path, bundle: Bundle, count: int) -> Frames:
    """At most ``count`` frames over all episodes. ConfigError if what reads it is missing."""
    try:
        from vla_trt_ros.sim.dataset.reader import Dataset, is_readable
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{path}: reading a LeRobot data set needs pyarrow: pip install 'vla_trt_ros[frames]'."
        ) from error
    data: Any = Dataset(path) if is_readable(path) else _through_lerobot(path)
    chosen = spread(len(data), count)
    observations = [item_observation(data[i], bundle, f'{path}: frame {i}') for i in chosen]
    judged = tuple(is_judged(i, len(data)) for i in chosen)
    return Frames(tuple(observations), str(path), judged)


def _through_lerobot(path: Path) -> Any:
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{path}: a LeRobot data set with videos or of another version than v3.0 is read by '
            'lerobot: pip install lerobot.'
        ) from error
    return LeRobotDataset(path.name, root=path)


def item_observation(item: Any, bundle: Bundle, name: str) -> Observation:
    """One item of a data set: images float [3, H, W] in 0 to 1 or uint8 [H, W, 3],
    ``observation.state``, ``task``.

    A view is found under its own name behind ``observation.images.``; ConfigError lists what the
    data set has where none fits.
    """
    held = sorted(key.removeprefix(_IMAGES) for key in item if key.startswith(_IMAGES))
    frames = {}
    for view in bundle.views:
        if view in held:
            frames[view] = raw_frame(view, _pixels(item[_IMAGES + view]))
    if not frames:
        raise ConfigError(
            f'{name} has the cameras {", ".join(held) or "none"}, the bundle wants '
            f'{", ".join(bundle.views)}; export the bundle with these names as its views.'
        )
    return observation(name, bundle, frames, item['observation.state'], item.get('task', ''))


def _pixels(image: Any) -> Uint8Array:
    values = np.asarray(image)
    if values.dtype == np.uint8:
        return values
    return np.rint(values.transpose(1, 2, 0) * 255.0).clip(0, 255).astype(np.uint8)
