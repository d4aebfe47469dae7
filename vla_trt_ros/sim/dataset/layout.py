"""Where things stand in a LeRobot v3.0 data set, and what its columns are called.

    meta/info.json                          features, totals, frames per second
    meta/stats.json                         mean, std, q01, q99 and more of state, action, images
    meta/tasks.parquet                      prompt -> task_index
    meta/episodes/chunk-000/file-000.parquet    a row per episode
    data/chunk-000/file-000.parquet         a row per frame, a row group per episode

Ours besides: ``expert_chunk`` and ``executed`` per frame, ``scene``, ``seed`` and ``noise`` per
episode, and meta/recording.json.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 'v3.0'
INFO = Path('meta/info.json')
STATS = Path('meta/stats.json')
TASKS = Path('meta/tasks.parquet')
RECORDING = Path('meta/recording.json')
EPISODES_DIR = Path('meta/episodes')
DATA_DIR = Path('data')
UNFINISHED = Path('.unfinished')
"""Episodes that no data file holds yet, half-written files and the lock."""

FILES_PER_CHUNK = 1000
FILE_MB = 100
IMAGES = 'observation.images.'
STATE = 'observation.state'
ACTION = 'action'
EXPERT_CHUNK = 'expert_chunk'
EXECUTED = 'executed'
# LeRobot takes every feature whose name begins with "action" for an output of the policy: ours are
# named otherwise.


@dataclass(frozen=True, slots=True)
class Layout:
    """What every frame of a data set has; two recordings into one folder must agree on it."""

    robot: str
    fps: int
    """Frames per second: control steps of the robot file."""
    views: tuple[str, ...]
    width: int
    height: int
    joints: tuple[str, ...]
    """Of state and action, in this order."""
    horizon: int
    """Rows of ``expert_chunk``."""

    def features(self) -> dict[str, dict[str, Any]]:
        """The ``features`` of info.json."""
        names = list(self.joints)
        image = {
            'dtype': 'image',
            'shape': [self.height, self.width, 3],
            'names': ['height', 'width', 'channels'],
        }
        vector = {'dtype': 'float32', 'shape': [len(names)], 'names': names}
        chunk = {
            'dtype': 'float32',
            'shape': [self.horizon, len(names)],
            'names': ['row', 'joint'],
        }
        counter = {'dtype': 'int64', 'shape': [1], 'names': None}
        return {
            **{IMAGES + view: dict(image) for view in self.views},
            STATE: dict(vector),
            ACTION: dict(vector),
            EXECUTED: dict(vector),
            EXPERT_CHUNK: chunk,
            'timestamp': {'dtype': 'float32', 'shape': [1], 'names': None},
            'frame_index': dict(counter),
            'episode_index': dict(counter),
            'index': dict(counter),
            'task_index': dict(counter),
        }


def numbered(folder: Path, number: int) -> Path:
    """The ``number``-th parquet file of ``folder``: chunk-000/file-000.parquet is the first."""
    chunk, file = divmod(number, FILES_PER_CHUNK)
    return folder / f'chunk-{chunk:03d}' / f'file-{file:03d}.parquet'


@contextmanager
def whole(path: Path, scratch: Path) -> Iterator[Path]:
    """A place in ``scratch`` to write a file to, which is moved to ``path`` once it is whole.

    An error or an interrupt leaves nothing behind, and what was at ``path``.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    half = scratch / f'{path.name}.{os.getpid()}.half'
    try:
        yield half
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
