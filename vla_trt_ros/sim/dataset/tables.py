"""The tables of meta/: a row per episode, and the prompts with their numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vla_trt_ros.sim.dataset import layout
from vla_trt_ros.sim.dataset.staging import Staged
from vla_trt_ros.sim.dataset.stats import Stats


def episode_row(episode: Staged, index: int, begin: int, file: int) -> dict[str, Any]:
    """Row of meta/episodes for episode ``index``, whose first frame is ``begin`` of all frames, in
    the ``file``-th data file.
    """
    chunk, number = divmod(file, layout.FILES_PER_CHUNK)
    return {
        'episode_index': index,
        'tasks': [episode.prompt],
        'length': episode.length,
        'dataset_from_index': begin,
        'dataset_to_index': begin + episode.length,
        'data/chunk_index': chunk,
        'data/file_index': number,
        'meta/episodes/chunk_index': chunk,
        'meta/episodes/file_index': number,
        'scene': episode.scene,
        'seed': episode.seed,
        'noise': episode.noise,
        **{
            f'stats/{feature}/{name}': value
            for feature, stats in episode.stats.items()
            for name, value in stats.items()
        },
    }


def stats_of(row: Mapping[str, Any], feature: str) -> Stats:
    """A feature's statistics out of a row of meta/episodes."""
    start = f'stats/{feature}/'
    return {name.removeprefix(start): row[name] for name in row if name.startswith(start)}


def episodes_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of `episode_row` as the table of one file."""
    return pa.Table.from_pylist(list(rows))


def tasks_table(prompts: Sequence[str]) -> pa.Table:
    """Prompts by number, with the prompt as pandas' index: so LeRobot looks them up."""
    table = pa.table({'task_index': pa.array(range(len(prompts)), pa.int64()), 'task': prompts})
    described = [
        {
            'name': name,
            'field_name': name,
            'pandas_type': kind,
            'numpy_type': numpy_type,
            'metadata': None,
        }
        for name, kind, numpy_type in (
            ('task_index', 'int64', 'int64'),
            ('task', 'unicode', 'object'),
        )
    ]
    pandas = {
        'index_columns': ['task'],
        'column_indexes': [],
        'columns': described,
        'pandas_version': '2.0.0',
    }
    return table.replace_schema_metadata({b'pandas': json.dumps(pandas).encode()})


def read_prompts(path: Path) -> list[str]:
    """Prompts in the order of their numbers, whoever wrote the table."""
    table = pq.read_table(path)
    name = next(name for name in table.column_names if name != 'task_index')
    pairs = zip(table['task_index'].to_pylist(), table[name].to_pylist(), strict=True)
    return [prompt for _, prompt in sorted(pairs)]
