"""A LeRobot data set as bags, a bag an episode, on the topics of a robot file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vla_trt_ros.bags.composing import Composer
from vla_trt_ros.bags.writer import BagWriter
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import (
    NS,
    CameraFrame,
    Command,
    CommandKind,
    Float64Array,
    JointSample,
    Uint8Array,
)
from vla_trt_ros.errors import ConfigError

BEGIN_NS = 1_700_000_000 * NS
"""Stamp of the first frame: data sets count from zero, and a stamp of zero is none."""
PROMPT_TOPIC = 'sim/task_prompt'
_IMAGES = 'observation.images.'
_EXECUTED = 'executed'
"""What ``vla-trt sim record`` calls the target that was really applied; others have 'action'."""


def episode_bags(
    source: Path, out: Path, robot: RobotConfig, *, zstd: bool = False
) -> Iterator[Path]:
    """Write out/episode_000000 and so on, yielding each when it is whole.

    State and action are taken by name where the data set names the robot's joints, else by their
    order. Row k of an episode is stamped k / fps after its first. ConfigError where joints or
    cameras do not fit, or a bag is there already.
    """
    data, features, lengths, fps = _open(source)
    views = [view for view in robot.cameras if _IMAGES + view in features]
    if not views:
        held = [name for name in features if name.startswith(_IMAGES)]
        raise ConfigError(
            f'{source} has none of the views {", ".join(robot.cameras)} of robot {robot.name}; it '
            f'has {", ".join(held) or "no pictures"}.'
        )
    action = _EXECUTED if _EXECUTED in features else 'action'
    state_order = _order(features, 'observation.state', robot.state_names, source)
    action_order = _order(features, action, robot.joint_names, source)
    begin = 0
    for index, length in enumerate(lengths):
        path = out / f'episode_{index:06d}'
        with BagWriter(path, zstd=zstd) as bag:
            composer = Composer(bag)
            for k in range(length):
                item = data[begin + k]
                stamp_ns = BEGIN_NS + round(k * NS / fps)
                if k == 0:
                    composer.text(PROMPT_TOPIC, stamp_ns, str(item['task']))
                state = np.asarray(item['observation.state'], np.float64)[state_order]
                composer.joints(
                    robot.joint_states_topic,
                    JointSample(stamp_ns, stamp_ns, robot.state_names, state),
                )
                for view in views:
                    frame = _frame(view, _pixels(item[_IMAGES + view]), stamp_ns)
                    composer.image(robot.cameras[view].topic, frame)
                target = np.asarray(item[action], np.float64)[action_order]
                composer.command(robot.controller.topic, _command(robot, target, stamp_ns))
        begin += length
        yield path


def _open(source: Path) -> tuple[Any, dict[str, Any], list[int], float]:
    """(items by index, features, frames of each episode, frames per second)."""
    try:
        from vla_trt_ros.sim.dataset.reader import Dataset, is_readable
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{source}: reading a data set needs pyarrow: pip install 'vla_trt_ros[frames]'."
        ) from error
    if is_readable(source):
        held = Dataset(source)
        lengths = [held.episode(i)['length'] for i in range(len(held.episodes))]
        return held, held.info['features'], lengths, held.info['fps']
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{source}: a LeRobot data set with videos or of another version than v3.0 is read by '
            'lerobot: pip install lerobot.'
        ) from error
    data: Any = LeRobotDataset(source.name, root=source)
    lengths = [int(n) for n in data.meta.episodes['length']]
    return data, data.meta.features, lengths, data.fps


def _order(
    features: dict[str, Any], column: str, names: tuple[str, ...], source: Path
) -> list[int]:
    """Where each of ``names`` stands in a column."""
    if column not in features:
        raise ConfigError(f'{source} has no {column}; it has {", ".join(features)}.')
    theirs = features[column].get('names')
    theirs = next(iter(theirs.values())) if isinstance(theirs, dict) else theirs
    held = [str(n).removesuffix('.pos') for n in theirs or ()]
    if set(names) <= set(held):
        return [held.index(name) for name in names]
    width = int(features[column]['shape'][0])
    if width != len(names):
        raise ConfigError(
            f'{source}: {column} has {width} numbers ({", ".join(held) or "without names"}), the '
            f'robot has {len(names)}: {", ".join(names)}. Give its own robot file with --robot.'
        )
    return list(range(width))


def _command(robot: RobotConfig, target: Float64Array, stamp_ns: int) -> Command:
    return Command(
        kind=CommandKind(robot.controller.kind),
        stamp_ns=stamp_ns,
        names=robot.joint_names,
        positions=target[None],
        velocities=np.zeros((1, target.size)),
        times=np.array([robot.step_ns / NS]),
    )


def _frame(view: str, image: Uint8Array, stamp_ns: int) -> CameraFrame:
    height, width, _ = image.shape
    data = np.ascontiguousarray(image).reshape(-1)
    return CameraFrame(stamp_ns, stamp_ns, view, 'rgb8', height, width, 3 * width, data)


def _pixels(image: Any) -> Uint8Array:
    values = np.asarray(image)
    if values.dtype == np.uint8:
        return values
    return np.rint(values.transpose(1, 2, 0) * 255.0).clip(0, 255).astype(np.uint8)
