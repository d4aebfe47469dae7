"""A finished episode as a file of its own, until a data file takes it in.

It is written by the process that recorded the episode, under a name that appears only once the
file is whole.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vla_trt_ros.datatypes import Float32Array, Uint8Array
from vla_trt_ros.sim.dataset import layout
from vla_trt_ros.sim.dataset.columns import arrow_schema
from vla_trt_ros.sim.dataset.layout import Layout
from vla_trt_ros.sim.dataset.stats import Stats, image_stats, vector_stats

_KEY = b'episode'
_PNG_LEVEL = 1  # a third of the time of the usual 6


@dataclass(frozen=True, slots=True)
class Take:
    """One episode as it was recorded: T frames, in the order of time.

    ``images``: view -> uint8 [T, H, W, 3] RGB. ``state``, ``action`` (the expert's target) and
    ``executed`` (the target really applied): float32 [T, J]. ``expert_chunk``: float32 [T, R, J],
    what the expert would command from each frame on. Targets are absolute, in the robot's units.
    """

    scene: str
    """The simulator's name of the task."""
    seed: int
    noise: float
    prompt: str
    images: Mapping[str, Uint8Array]
    state: Float32Array
    action: Float32Array
    expert_chunk: Float32Array
    executed: Float32Array


@dataclass(frozen=True, slots=True)
class Staged:
    """What is known of a staged episode without its frames."""

    path: Path
    scene: str
    seed: int
    noise: float
    prompt: str
    length: int
    stats: Mapping[str, Stats]
    """Feature -> statistics of this episode."""

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size


def stage(root: Path, shape: Layout, take: Take) -> Staged:
    """Write an episode beneath the data set ``root``; OSError where the disk is full."""
    stats = {layout.IMAGES + view: image_stats(images) for view, images in take.images.items()}
    stats |= {
        layout.STATE: vector_stats(take.state),
        layout.ACTION: vector_stats(take.action),
    }
    about = {
        'scene': take.scene,
        'seed': take.seed,
        'noise': take.noise,
        'prompt': take.prompt,
        'stats': stats,
    }
    table = _table(take, shape.features()).replace_schema_metadata(
        {_KEY: json.dumps(about).encode()}
    )
    folder = root / layout.UNFINISHED
    path = folder / f'{take.scene}-{take.seed}.parquet'
    with layout.whole(path, folder) as half:
        pq.write_table(table, half, compression='none', use_dictionary=False)
    return staged(path)


def staged(path: Path) -> Staged:
    """Read what `stage` wrote beside the frames."""
    schema = pq.ParquetFile(path).schema_arrow
    about = json.loads(schema.metadata[_KEY])
    return Staged(path=path, length=pq.read_metadata(path).num_rows, **about)


def png(image: Uint8Array) -> bytes:
    """uint8 [H, W, 3] without loss."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, 'PNG', compress_level=_PNG_LEVEL)
    return stream.getvalue()


def _table(take: Take, features: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    made: dict[str, Any] = {
        layout.IMAGES + view: [
            {'bytes': png(image), 'path': f'frame-{i:06d}.png'} for i, image in enumerate(images)
        ]
        for view, images in take.images.items()
    }
    for name, rows in (
        (layout.STATE, take.state),
        (layout.ACTION, take.action),
        (layout.EXECUTED, take.executed),
        (layout.EXPERT_CHUNK, take.expert_chunk),
    ):
        made[name] = np.asarray(rows, np.float32).tolist()
    kept = {name: feature for name, feature in features.items() if name in made}
    return pa.table({name: made[name] for name in kept}, schema=arrow_schema(kept))
