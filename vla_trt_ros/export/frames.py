"""Observations to calibrate with and to judge on: from a folder, a LeRobot data set, a rosbag, or
made up. Part A gives the scales; part B, which calibration never sees, gives the verdict.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_trt_ros.bundle import Bundle
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import CameraFrame, Float32Array, Observation, Uint8Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.preprocess.normalize import load_norm_stats

FEWEST = 8
"""Frames that each part needs: fewer leave the scales to chance."""
FRAMES_FILE = 'frames.json'
_STRETCHES = 64
_SUFFIX = {'.jpg': 'jpeg', '.jpeg': 'jpeg', '.png': 'png'}


@dataclass(frozen=True, slots=True)
class Frames:
    """Observations in the order of time, and where they are from."""

    observations: tuple[Observation, ...]
    origin: str
    judged: tuple[bool, ...] = ()
    """Which are of part B (`is_judged`); every second one where it is empty."""

    def split(self) -> tuple[tuple[Observation, ...], tuple[Observation, ...]]:
        """Parts A and B. ConfigError for too few frames."""
        judged = self.judged or tuple(i % 2 == 1 for i in range(len(self.observations)))
        pairs = list(zip(self.observations, judged, strict=True))
        part_a = tuple(o for o, b in pairs if not b)
        part_b = tuple(o for o, b in pairs if b)
        if min(len(part_a), len(part_b)) < FEWEST:
            raise ConfigError(
                f'{self.origin}: {len(pairs)} frames are too few; {2 * FEWEST} at least are '
                f'needed, {FEWEST} for the scales and {FEWEST} to judge on.'
            )
        return part_a, part_b


def read_frames(
    path: Path, bundle: Bundle, count: int, prompt: str = '', robot: RobotConfig | None = None
) -> Frames:
    """At most ``count`` frames, evenly spread over what lies at ``path``.

    A folder with frames.json, a LeRobot data set (meta/info.json) or a rosbag (a folder with
    metadata.yaml, an .mcap or a .bag), which needs ``robot`` for its topics. ``prompt`` is for
    sources that hold none. ConfigError for anything else.
    """
    if (path / FRAMES_FILE).is_file():
        return folder_frames(path, bundle, count, prompt)
    if (path / 'meta' / 'info.json').is_file():
        from vla_trt_ros.export.frames_lerobot import lerobot_frames

        return lerobot_frames(path, bundle, count)
    if path.suffix in ('.mcap', '.bag') or (path / 'metadata.yaml').is_file():
        from vla_trt_ros.export.frames_bag import bag_frames

        if robot is None:
            raise ConfigError(f'{path}: a bag needs the robot file, for its topics: --robot NAME.')
        return bag_frames(path, bundle, robot, count, prompt)
    raise ConfigError(
        f'{path} is no source of frames: give a folder with {FRAMES_FILE}, a LeRobot data set '
        '(meta/info.json) or a rosbag (metadata.yaml, .mcap or .bag).'
    )


def folder_frames(folder: Path, bundle: Bundle, count: int, prompt: str = '') -> Frames:
    """Rows of frames.json: ``{"images": {view: file}, "state": [...], "prompt": text}``.

    States are in the robot's units and the bundle's order. Images are .png or .jpg.
    """
    where = folder / FRAMES_FILE
    try:
        rows = json.loads(where.read_text(encoding='utf-8'))
        assert isinstance(rows, list)
    except (OSError, ValueError, AssertionError) as error:
        raise ConfigError(f'{where} must hold a JSON list of frames ({error}).') from error
    observations = []
    chosen = spread(len(rows), count)
    for i in chosen:
        row = rows[i]
        name = f'{where}: frame {i}'
        if not isinstance(row, dict) or not isinstance(row.get('images'), dict):
            raise ConfigError(f'{name} lacks "images", a file per view.')
        unknown = sorted(set(row['images']) - set(bundle.views))
        if unknown:
            raise ConfigError(f'{name}: view {unknown[0]!r} is none of {", ".join(bundle.views)}.')
        frames = {
            view: _file_frame(folder / file, view, i) for view, file in row['images'].items()
        }
        observations.append(
            observation(name, bundle, frames, row.get('state'), row.get('prompt', prompt))
        )
    judged = tuple(is_judged(i, len(rows)) for i in chosen)
    return Frames(tuple(observations), str(folder), judged)


def synthetic_frames(
    bundle: Bundle, count: int, prompts: Sequence[str], seed: int = 0, size: int = 160
) -> Frames:
    """Pictures of coloured shapes on a gradient, states over the robot's range; seeded.

    They exercise every path, and say nothing of a real camera: a network's scales must come from
    frames of its robot.
    """
    rng = np.random.default_rng(seed)
    width = len(bundle.layout.state)
    stats = load_norm_stats(
        bundle.file(bundle.manifest.norm_stats),
        {'state': width, 'actions': len(bundle.layout.actions)},
    )['state']
    made = []
    for i in range(count):
        frames = {
            view: raw_frame(view, _picture(rng, size), stamp_ns=i + 1) for view in bundle.views
        }
        state = stats.q01 + (stats.q99 - stats.q01) * rng.uniform(0.05, 0.95, width)
        made.append(Observation(frames, state.astype(np.float32), prompts[i % len(prompts)]))
    return Frames(tuple(made), f'{count} made-up pictures, seed {seed}')


def is_judged(index: int, length: int) -> bool:
    """Whether frame ``index`` of a recording of ``length`` belongs to part B.

    A recording is cut into 64 stretches (fewer where it is shorter), in turn A and B. It depends
    on nothing else: a frame that gave scales at export is never judged on later, however many
    frames either takes.
    """
    return index * min(length, _STRETCHES) // length % 2 == 1


def spread(length: int, count: int) -> list[int]:
    """At most ``count`` indices of ``length``, half of each part, evenly spread over it."""
    if length <= count:
        return list(range(length))
    picked: list[int] = []
    for judged, wanted in ((False, count - count // 2), (True, count // 2)):
        part = [i for i in range(length) if is_judged(i, length) == judged]
        places = np.linspace(0, len(part) - 1, min(wanted, len(part))).round().astype(int)
        picked += [part[k] for k in places]
    return sorted(picked)


def raw_frame(view: str, image: Uint8Array, stamp_ns: int = 1) -> CameraFrame:
    """An RGB picture uint8 [H, W, 3] as a camera's frame."""
    height, width, _ = image.shape
    data = np.ascontiguousarray(image).reshape(-1)
    return CameraFrame(stamp_ns, stamp_ns, view, 'rgb8', height, width, 3 * width, data)


def observation(
    name: str, bundle: Bundle, frames: dict[str, CameraFrame], state: Any, prompt: Any
) -> Observation:
    """Checked: one view at least, a state of the bundle's length, a prompt."""
    if not frames:
        raise ConfigError(f'{name} holds no picture; the bundle wants {", ".join(bundle.views)}.')
    try:
        numbers: Float32Array = np.asarray(state, np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f'{name}: state {state!r} must be numbers.') from error
    wanted = len(bundle.layout.state)
    if numbers.shape != (wanted,) or not np.isfinite(numbers).all():
        raise ConfigError(
            f'{name}: state {numbers.tolist()} must be {wanted} finite numbers: '
            f'{", ".join(bundle.layout.state)}.'
        )
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError(f'{name} has no prompt; give one with --prompt.')
    return Observation(frames, numbers, prompt)


def _file_frame(path: Path, view: str, i: int) -> CameraFrame:
    encoding = _SUFFIX.get(path.suffix.lower())
    if encoding is None:
        raise ConfigError(f'{path} is none of {", ".join(_SUFFIX)}.')
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ConfigError(f'{path} cannot be read ({error.strerror}).') from error
    return CameraFrame(i + 1, i + 1, view, encoding, 0, 0, 0, data)


def _picture(rng: np.random.Generator, size: int) -> Uint8Array:
    ramp = np.linspace(0.0, 1.0, size)[:, None, None]
    top, bottom = rng.uniform(0, 255, (2, 1, 1, 3))
    image = np.broadcast_to(top + (bottom - top) * ramp, (size, size, 3)).copy()
    rows, columns = np.mgrid[:size, :size]
    for _ in range(int(rng.integers(3, 8))):
        y, x = rng.uniform(0, size, 2)
        radius = rng.uniform(0.05, 0.25) * size
        if rng.random() < 0.5:
            inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        else:
            inside = (abs(rows - y) < radius) & (abs(columns - x) < radius)
        image[inside] = rng.uniform(0, 255, 3)
    noisy = image + rng.normal(0.0, 3.0, image.shape)
    return np.asarray(noisy.clip(0, 255), np.uint8)
