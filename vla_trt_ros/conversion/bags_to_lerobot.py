"""Bags as a LeRobot data set, written by LeRobot's own library."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from vla_trt_ros.bags.reader import BagReader
from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.conversion.moments import Moments
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.replay.recorded import Source

_IMAGES = 'observation.images.'


def lerobot_episodes(
    bag: BagReader,
    robot: RobotConfig,
    source: Source,
    out: Path,
    *,
    task: str = '',
    videos: bool = False,
) -> Iterator[int]:
    """Write the data set ``out``, at the robot's control rate, yielding the frames of each episode
    once it is saved.

    Pictures keep their size, which may not change; ``videos`` compresses them as LeRobot does.
    ``task`` is for bags without a prompt. ConfigError: lerobot is not installed, ``out`` exists,
    the control rate is no whole number, there is no prompt, or no step with everything.
    """
    create = _library()
    if out.exists():
        raise ConfigError(f'{out} exists: a data set goes into a new folder.')
    if not float(robot.control_rate).is_integer():
        raise ConfigError(
            f'control_rate {robot.control_rate} of {robot.name} is no whole number of frames a '
            'second, which a data set wants.'
        )
    views = tuple(robot.cameras)
    moments = Moments(bag, robot, source, views)
    data: Any = None
    sizes: dict[str, tuple[int, ...]] = {}
    for index, episode in groupby(moments, key=lambda moment: moment.episode):
        count = 0
        for moment in episode:
            prompt = moment.prompt or task
            if not prompt:
                raise ConfigError('the bag holds no prompt: say what was done with --task.')
            images = {view: to_rgb(frame) for view, frame in moment.frames.items()}
            shapes = {view: image.shape for view, image in images.items()}
            if data is None:
                sizes = shapes
                data = create(
                    repo_id=out.name,
                    fps=int(robot.control_rate),
                    features=_features(robot, sizes, 'video' if videos else 'image'),
                    root=out,
                    robot_type=robot.name,
                    use_videos=videos,
                )
            if shapes != sizes:
                raise ConfigError(
                    f'episode {index}: pictures change from {sizes} to {shapes}; a data set has '
                    'one size a camera.'
                )
            data.add_frame(
                {
                    **{_IMAGES + view: np.array(image) for view, image in images.items()},
                    'observation.state': moment.state,
                    'action': moment.action,
                    'task': prompt,
                }
            )
            count += 1
        data.save_episode()
        yield count
    if data is None:
        raise ConfigError(
            f'{", ".join(map(str, bag.paths))}: no step has every camera, joint states and an '
            f'action ({moments.counts.counts or "nothing was recorded together"}).'
        )
    if hasattr(data, 'finalize'):  # since v3.0 of the format
        data.finalize()


def _library() -> Any:
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ModuleNotFoundError as error:
        raise ConfigError(
            'writing a LeRobot data set needs its own library: pip install lerobot.'
        ) from error
    return LeRobotDataset.create


def _features(robot: RobotConfig, sizes: dict[str, tuple[int, ...]], kind: str) -> dict[str, Any]:
    def vector(names: tuple[str, ...]) -> dict[str, Any]:
        return {'dtype': 'float32', 'shape': (len(names),), 'names': list(names)}

    pictures = {
        _IMAGES + view: {'dtype': kind, 'shape': size, 'names': ['height', 'width', 'channels']}
        for view, size in sizes.items()
    }
    return {
        **pictures,
        'observation.state': vector(robot.state_names),
        'action': vector(robot.joint_names),
    }
