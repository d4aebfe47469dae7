"""Observations from a LeRobot data set. Needs the package lerobot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vla_trt_ros.bundle import Bundle
from vla_trt_ros.datatypes import Observation
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.frames import Frames, is_judged, observation, raw_frame, spread

_IMAGES = 'observation.images.'


def lerobot_frames(path: Path, bundle: Bundle, count: int) -> Frames:
    """At most ``count`` frames over all episodes. ConfigError if lerobot is not installed."""
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{path}: reading a LeRobot data set needs lerobot: pip install lerobot.'
        ) from error
    data: Any = LeRobotDataset(path.name, root=path)
    chosen = spread(len(data), count)
    observations = [item_observation(data[i], bundle, f'{path}: frame {i}') for i in chosen]
    judged = tuple(is_judged(i, len(data)) for i in chosen)
    return Frames(tuple(observations), str(path), judged)


def item_observation(item: Any, bundle: Bundle, name: str) -> Observation:
    """One item of a data set: images float [3, H, W] in 0 to 1, ``observation.state``, ``task``.

    A view is found under its own name behind ``observation.images.``; ConfigError lists what the
    data set has where none fits.
    """
    held = sorted(key.removeprefix(_IMAGES) for key in item if key.startswith(_IMAGES))
    frames = {}
    for view in bundle.views:
        if view in held:
            planes = np.asarray(item[_IMAGES + view], np.float32)
            image = np.rint(planes.transpose(1, 2, 0) * 255.0).clip(0, 255).astype(np.uint8)
            frames[view] = raw_frame(view, image)
    if not frames:
        raise ConfigError(
            f'{name} has the cameras {", ".join(held) or "none"}, the bundle wants '
            f'{", ".join(bundle.views)}; export the bundle with these names as its views.'
        )
    return observation(name, bundle, frames, item['observation.state'], item.get('task', ''))
