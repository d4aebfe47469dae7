"""Which files a bag is made of, in their order: metadata.yaml says it, else their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vla_trt_ros.errors import ConfigError

METADATA = 'metadata.yaml'
_KINDS = ('.mcap', '.db3', '.bag')
_ZSTD = '.zstd'


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic of a bag; ``count`` of messages is 0 where the bag does not say."""

    topic: str
    type: str
    count: int


@dataclass(frozen=True, slots=True)
class Parts:
    """The storage files of one bag.

    ``topics``: what metadata.yaml lists, None without it. ``notes`` are for people: what was
    missing and how it was made good.
    """

    path: Path
    files: tuple[Path, ...]
    topics: tuple[TopicInfo, ...] | None
    notes: tuple[str, ...] = ()


def find_parts(path: Path) -> Parts:
    """The files of the bag ``path``: a folder, or one .mcap, .db3 or .bag, or a .zstd of one.

    ConfigError where there is no bag, or one in a format that is not read.
    """
    if not path.exists():
        raise ConfigError(
            f'{path} does not exist; give the folder of a bag, or its .mcap or .db3.'
        )
    if path.is_file():
        if storage_suffix(path) not in _KINDS:
            raise ConfigError(
                f'{path} is no bag: {", ".join(_KINDS)} are read, or a folder of them.'
            )
        return Parts(path, (path,), None)
    found = tuple(sorted((p for p in path.iterdir() if storage_suffix(p) in _KINDS), key=_natural))
    metadata, trouble = _metadata(path / METADATA)
    if metadata is None:
        if not found:
            raise ConfigError(f'{path} holds no bag: no {METADATA}, .mcap or .db3 lies in it.')
        note = f'{path / METADATA} {trouble}: read its {len(found)} file(s) in the order of names.'
        return Parts(path, found, None, (note,))
    storage = metadata.get('storage_identifier')
    if storage not in ('mcap', 'sqlite3'):
        raise ConfigError(f'{path} is stored as {storage!r}; mcap and sqlite3 are read.')
    form = metadata.get('compression_format') or 'zstd'
    if form != 'zstd':
        raise ConfigError(f'{path} is compressed with {form!r}; zstd is read.')
    named = [path / Path(str(name)).name for name in metadata['relative_file_paths']]
    files = tuple(p for p in named if p.exists())
    notes = tuple(f'{p} is missing: {METADATA} lists it.' for p in named if not p.exists())
    if named and not files:
        raise ConfigError(
            f'{path}: none of the files that {METADATA} lists is there '
            f'({", ".join(p.name for p in named)}).'
        )
    return Parts(path, files, _listed(metadata), notes)


def storage_suffix(path: Path) -> str:
    """'.mcap', '.db3' or '.bag' of a file that may be compressed; else another suffix."""
    return Path(path.stem).suffix if is_compressed(path) else path.suffix


def is_compressed(path: Path) -> bool:
    """True for a file that is compressed as a whole."""
    return path.suffix == _ZSTD


def _metadata(path: Path) -> tuple[dict[str, Any] | None, str]:
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        found: dict[str, Any] = content['rosbag2_bagfile_information']
        _listed(found)
        list(found['relative_file_paths'])
    except FileNotFoundError:
        return None, 'is missing'
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None, 'cannot be read'
    return found, ''


def _listed(metadata: dict[str, Any]) -> tuple[TopicInfo, ...]:
    rows = ((t['topic_metadata'], t) for t in metadata['topics_with_message_count'])
    return tuple(
        TopicInfo(str(topic['name']), str(topic['type']), int(row['message_count']))
        for topic, row in rows
    )


def _natural(path: Path) -> list[tuple[int, str]]:
    """bag_2 before bag_10."""
    words = re.split(r'(\d+)', path.name)
    return [(int(w), '') if w.isdigit() else (-1, w) for w in words]
