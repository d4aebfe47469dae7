"""Finished episodes into the files of a LeRobot v3.0 data set, so that a kill at any moment leaves
a data set that is whole.

An episode counts once its row stands in meta/episodes. A data file without such a file of the same
number was half done: its episodes are still in ``.unfinished``, and it is written again.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_trt_ros.closing import Closing
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.sim.dataset import layout
from vla_trt_ros.sim.dataset.columns import arrow_schema
from vla_trt_ros.sim.dataset.layout import Layout, numbered, whole
from vla_trt_ros.sim.dataset.staging import Staged, staged
from vla_trt_ros.sim.dataset.stats import Totals
from vla_trt_ros.sim.dataset.tables import (
    episode_row,
    episodes_table,
    read_prompts,
    stats_of,
    tasks_table,
)

_VECTORS = (layout.STATE, layout.ACTION)


class DatasetWriter(Closing):
    """The data set at ``root``, begun or gone on with. One writer at a time: use it in a ``with``.

    ConfigError where another writes there, where ``root`` holds something else, or frames of
    another shape. What an interrupted writer left is put in order first.
    """

    def __init__(self, root: Path, shape: Layout) -> None:
        self.root = root
        self.shape = shape
        self._scratch = root / layout.UNFINISHED
        self.failed: dict[tuple[str, int], str] = {}
        """(scene, seed) -> why there is no episode of it."""
        self._episodes: list[dict[str, Any]] = []
        self._tasks: list[str] = []
        self._files = 0
        self._images = [layout.IMAGES + view for view in shape.views]
        self._totals = Totals(_VECTORS, self._images)
        self._check_place()
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._lock = (self._scratch / 'lock').open('w')
        try:
            self._take_lock()
            self._recover()
        except BaseException:
            self._lock.close()
            raise

    @property
    def recorded(self) -> set[tuple[str, int]]:
        """(scene, seed) of every episode that the data files hold."""
        return {(row['scene'], row['seed']) for row in self._episodes}

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """A row per episode, as in meta/episodes."""
        return self._episodes

    @property
    def episodes(self) -> int:
        """How many the data files hold."""
        return len(self._episodes)

    @property
    def frames(self) -> int:
        """How many the data files hold."""
        return int(self._episodes[-1]['dataset_to_index']) if self._episodes else 0

    def fail(self, scene: str, seed: int, reason: str) -> None:
        """Remember that this scene gave no episode, so that it is not tried again."""
        self.failed[scene, seed] = reason
        self._write_recording()

    def forget_failures(self) -> None:
        """Let what failed be tried again."""
        self.failed.clear()
        self._write_recording()

    def add(self, episodes: Sequence[Staged]) -> None:
        """Put staged episodes into one new data file, in this order; their own files go."""
        if not episodes:
            return
        rows = self._describe(episodes)
        number = self._files
        self._write_data(numbered(self.root / layout.DATA_DIR, number), episodes, rows)
        with whole(self.root / layout.TASKS, self._scratch) as half:
            pq.write_table(tasks_table(self._tasks), half)
        with whole(numbered(self.root / layout.EPISODES_DIR, number), self._scratch) as half:
            pq.write_table(episodes_table(rows), half)
        self._count(rows)
        self._write_totals()
        for episode in episodes:
            episode.path.unlink()

    def close(self) -> None:
        """Release the folder. Staged episodes stay for the next writer."""
        left = list(self._scratch.glob('*.parquet'))
        self._lock.close()
        if not left:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _check_place(self) -> None:
        recording = self.root / layout.RECORDING
        if recording.is_file():
            held = json.loads(recording.read_text(encoding='utf-8'))
            wanted = self._settings()
            for name, value in wanted.items():
                if held.get(name) != value:
                    raise ConfigError(
                        f'{self.root} was recorded with {name} {held.get(name)!r}, this '
                        f'call asks for {value!r}: choose another folder or the same '
                        'settings.'
                    )
            self.failed = {(f['scene'], f['seed']): f['reason'] for f in held['failed']}
        elif _is_foreign(self.root):
            raise ConfigError(
                f'{self.root} holds something that was not recorded here: choose an empty or a '
                'new folder.'
            )

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f'another recording writes to {self.root}: wait for it or choose another folder.'
            ) from None

    def _recover(self) -> None:
        """Count what is there, drop what is half, take in what was left staged."""
        for half in self._scratch.glob('*.half'):
            half.unlink()
        while (path := numbered(self.root / layout.EPISODES_DIR, self._files)).is_file():
            self._count(pq.read_table(path).to_pylist())
        numbered(self.root / layout.DATA_DIR, self._files).unlink(missing_ok=True)
        if (self.root / layout.TASKS).is_file():
            self._tasks = read_prompts(self.root / layout.TASKS)
        self._write_recording()
        if self._episodes:
            self._write_totals()
        left = [staged(path) for path in sorted(self._scratch.glob('*.parquet'))]
        for episode in left:
            if (episode.scene, episode.seed) in self.recorded:
                episode.path.unlink()
        self.add([e for e in left if e.path.exists()])

    def _describe(self, episodes: Sequence[Staged]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        begin = self.frames
        for episode in episodes:
            if episode.prompt not in self._tasks:
                self._tasks.append(episode.prompt)
            rows.append(episode_row(episode, self.episodes + len(rows), begin, self._files))
            begin += episode.length
        return rows

    def _write_data(
        self, path: Path, episodes: Sequence[Staged], rows: Sequence[dict[str, Any]]
    ) -> None:
        schema = arrow_schema(self.shape.features())
        with (
            whole(path, self._scratch) as half,
            pq.ParquetWriter(half, schema, compression='none', use_dictionary=False) as writer,
        ):
            for episode, row in zip(episodes, rows, strict=True):
                table = self._numbered_frames(pq.read_table(episode.path), row)
                writer.write_table(table.select(schema.names).cast(schema))

    def _numbered_frames(self, table: pa.Table, row: dict[str, Any]) -> pa.Table:
        count = row['length']
        frame = np.arange(count)
        task = self._tasks.index(row['tasks'][0])
        for name, values in (
            ('timestamp', (frame / self.shape.fps).astype(np.float32)),
            ('frame_index', frame),
            ('episode_index', np.full(count, row['episode_index'])),
            ('index', row['dataset_from_index'] + frame),
            ('task_index', np.full(count, task)),
        ):
            table = table.append_column(name, pa.array(values))
        return table

    def _count(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take the next data file, which holds the episodes ``rows``, into the totals."""
        data = pq.read_table(
            numbered(self.root / layout.DATA_DIR, self._files), columns=list(_VECTORS)
        )
        vectors = {name: np.array(data[name].to_pylist(), np.float32) for name in _VECTORS}
        self._totals.add(vectors, [{k: stats_of(row, k) for k in self._images} for row in rows])
        self._episodes += rows
        self._files += 1

    def _settings(self) -> dict[str, Any]:
        return {
            'robot': self.shape.robot,
            'fps': self.shape.fps,
            'views': list(self.shape.views),
            'image_size': [self.shape.width, self.shape.height],
            'joints': list(self.shape.joints),
            'horizon': self.shape.horizon,
        }

    def _write_recording(self) -> None:
        failed = [
            {'scene': scene, 'seed': seed, 'reason': reason}
            for (scene, seed), reason in self.failed.items()
        ]
        self._write_json(layout.RECORDING, {**self._settings(), 'failed': failed})

    def _write_totals(self) -> None:
        self._write_json(layout.STATS, self._totals.stats())
        data = layout.DATA_DIR / 'chunk-{chunk_index:03d}' / 'file-{file_index:03d}.parquet'
        self._write_json(
            layout.INFO,
            {
                'codebase_version': layout.VERSION,
                'robot_type': self.shape.robot,
                'total_episodes': self.episodes,
                'total_frames': self.frames,
                'total_tasks': len(self._tasks),
                'chunks_size': layout.FILES_PER_CHUNK,
                'data_files_size_in_mb': layout.FILE_MB,
                'video_files_size_in_mb': 200,
                'fps': self.shape.fps,
                'splits': {'train': f'0:{self.episodes}'},
                'data_path': str(data),
                'video_path': None,
                'features': self.shape.features(),
            },
        )

    def _write_json(self, place: Path, content: Any) -> None:
        with whole(self.root / place, self._scratch) as half:
            half.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def _is_foreign(root: Path) -> bool:
    if not root.is_dir():
        return root.exists()
    return any(root.iterdir()) and not (root / layout.UNFINISHED).is_dir()
