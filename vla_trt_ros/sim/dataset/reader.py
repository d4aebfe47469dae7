"""LeRobot v3.0 data sets with images, read without LeRobot and without torch: ours, and others
that keep their pictures as images and not as video.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vla_trt_ros.datatypes import Float32Array, Uint8Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.sim.dataset import layout
from vla_trt_ros.sim.dataset.tables import read_prompts


@dataclass(frozen=True, slots=True)
class StoredEpisode:
    """One episode of T frames and J joints; the pictures stay compressed until they are asked for.

    ``state``, ``action`` (the expert's target at the frame) and ``executed`` (the target that was
    applied, noise and all): float32 [T, J]; ``expert_chunk``: float32 [T, R, J]. Targets are
    absolute, in the robot's units.
    """

    index: int
    scene: str
    """The simulator's name of the task, such as 'drawer-open'."""
    prompt: str
    seed: int
    noise: float
    state: Float32Array
    action: Float32Array
    executed: Float32Array
    expert_chunk: Float32Array
    encoded: Mapping[str, Sequence[bytes]]
    """View -> PNG of each frame."""

    def __len__(self) -> int:
        return len(self.state)

    def image(self, view: str, frame: int) -> Uint8Array:
        """uint8 [H, W, 3], RGB."""
        return decode(self.encoded[view][frame])

    def images(self, view: str) -> Uint8Array:
        """uint8 [T, H, W, 3], RGB."""
        return np.stack([decode(data) for data in self.encoded[view]])


def read_dataset(
    path: Path, *, scenes: Sequence[str] = (), episodes: Sequence[int] | None = None
) -> Iterator[StoredEpisode]:
    """Episodes that ``vla-trt sim record`` wrote, in order, one in memory at a time.

    ``scenes`` keeps these tasks alone, ``episodes`` these indices: several processes can share the
    work. ConfigError where ``path`` holds no such data set or lacks an episode.
    """
    data = Dataset(path)
    if 'seed' not in data.episodes.column_names:
        raise ConfigError(f'{path} was not recorded by vla-trt sim record: it has no seeds.')
    chosen = range(len(data.episodes)) if episodes is None else episodes
    for index in chosen:
        if not 0 <= index < len(data.episodes):
            raise ConfigError(
                f'{path} has {len(data.episodes)} episodes, from 0; there is no {index}.'
            )
        row = data.episode(index)
        if not scenes or row['scene'] in scenes:
            yield _stored(data, row)


class Dataset:
    """An open data set: its tables in memory, its frames on disk.

    ConfigError where ``path`` holds no v3.0 data set, or one with videos.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info = _info(path)
        self.prompts = read_prompts(path / layout.TASKS)
        self.views = tuple(
            name.removeprefix(layout.IMAGES)
            for name, feature in self.info['features'].items()
            if name.startswith(layout.IMAGES) and feature['dtype'] == 'image'
        )
        files = sorted((path / layout.EPISODES_DIR).glob('*/*.parquet'))
        tables = [pq.read_table(file) for file in files]
        self.episodes = pa.concat_tables(tables, promote_options='default')
        self._groups = list(_row_groups(path))
        self._open: tuple[Path, Any] | None = None

    def __len__(self) -> int:
        """Frames."""
        return int(self.info['total_frames'])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Frame ``index`` under the names that LeRobot uses: images uint8 [H, W, 3], vectors
        float32, ``task`` the prompt.
        """
        item: dict[str, Any] = self.frames(index, index + 1).to_pylist()[0]
        for view in self.views:
            item[layout.IMAGES + view] = decode(item[layout.IMAGES + view]['bytes'])
        for name, value in item.items():
            if isinstance(value, list):
                item[name] = np.array(value, np.float32)
        return {**item, 'task': self.prompts[item['task_index']]}

    def episode(self, index: int) -> dict[str, Any]:
        """Row ``index`` of meta/episodes."""
        row: dict[str, Any] = self.episodes.slice(index, 1).to_pylist()[0]
        return row

    def frames(self, begin: int, end: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows ``begin`` to ``end`` - 1 of all frames."""
        parts = []
        for file, group, first, count in self._groups:
            low, high = max(begin, first), min(end, first + count)
            if low < high:
                table = self._file(file).read_row_group(group, columns=columns)
                parts.append(table.slice(low - first, high - low))
        return pa.concat_tables(parts)

    def _file(self, path: Path) -> Any:
        if self._open is None or self._open[0] != path:
            self._open = (path, pq.ParquetFile(path))
        return self._open[1]


def decode(data: bytes) -> Uint8Array:
    """A compressed picture as uint8 [H, W, 3], RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert('RGB'))


def is_readable(path: Path) -> bool:
    """True for a data set that `Dataset` opens: v3.0, pictures as images."""
    try:
        _info(path)
    except ConfigError:
        return False
    return True


def _info(path: Path) -> dict[str, Any]:
    try:
        info: dict[str, Any] = json.loads((path / layout.INFO).read_text(encoding='utf-8'))
        version, features = info['codebase_version'], info['features']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{path} holds no LeRobot data set: {layout.INFO} ({error}).') from error
    if version != layout.VERSION:
        raise ConfigError(
            f'{path} is a LeRobot data set {version}; {layout.VERSION} is read here.'
        )
    videos = [name for name, feature in features.items() if feature['dtype'] == 'video']
    if videos:
        raise ConfigError(f'{path} keeps {videos[0]} as video; images are read here.')
    return info


def _row_groups(path: Path) -> Iterator[tuple[Path, int, int, int]]:
    """(file, row group, its first frame of all, how many) over all data files."""
    first = 0
    for file in sorted((path / layout.DATA_DIR).glob('*/*.parquet')):
        facts = pq.read_metadata(file)
        for group in range(facts.num_row_groups):
            count = facts.row_group(group).num_rows
            yield file, group, first, count
            first += count


def _stored(data: Dataset, row: Mapping[str, Any]) -> StoredEpisode:
    frames = data.frames(row['dataset_from_index'], row['dataset_to_index'])

    def numbers(name: str) -> Float32Array:
        return np.array(frames[name].to_pylist(), np.float32)

    return StoredEpisode(
        index=row['episode_index'],
        scene=row['scene'],
        prompt=row['tasks'][0],
        seed=row['seed'],
        noise=row['noise'],
        state=numbers(layout.STATE),
        action=numbers(layout.ACTION),
        executed=numbers(layout.EXECUTED),
        expert_chunk=numbers(layout.EXPERT_CHUNK),
        encoded={
            view: [image['bytes'] for image in frames[layout.IMAGES + view].to_pylist()]
            for view in data.views
        },
    )
