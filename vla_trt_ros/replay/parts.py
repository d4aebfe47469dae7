"""Results on disk while a replay runs: a folder a part, which is one bag under one setting.

``frames.csv`` gets a row per judged frame, on disk as it is judged; ``part.json``, written last,
says under which conditions and that the part is whole. What stops a run loses the part it was in.
"""

from __future__ import annotations

import array
import contextlib
import csv
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np

from vla_trt_ros.datatypes import Float64Array
from vla_trt_ros.errors import ConfigError, VlaError

FRAMES, PART = 'frames.csv', 'part.json'


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers of judged frames: ``values`` float64 [N, C], NaN where there is none."""

    columns: tuple[str, ...]
    values: Float64Array

    def __getitem__(self, column: str) -> Float64Array:
        """float64 [N]."""
        found: Float64Array = self.values[:, self.columns.index(column)]
        return found


@dataclass(frozen=True, slots=True)
class PartResult:
    """A part that is whole: its frames, and what else was noted (plain JSON data)."""

    conditions: Mapping[str, Any]
    table: Table
    facts: Mapping[str, Any]


class PartWriter:
    """Writes the part in ``folder``; a part that is there is replaced. VlaError where the disk
    does not take it, which leaves what is written.
    """

    def __init__(
        self, folder: Path, conditions: Mapping[str, Any], columns: tuple[str, ...]
    ) -> None:
        self._folder = folder
        self._conditions = conditions
        self._columns = columns
        self._stream: TextIO
        self.rows = 0

    def __enter__(self) -> PartWriter:
        with disk(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / PART).unlink(missing_ok=True)
            self._stream = (self._folder / FRAMES).open('w', encoding='utf-8', newline='')
            self._stream.write(','.join(self._columns) + '\n')
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            with disk(self._folder):
                self._stream.close()
            return
        with contextlib.suppress(OSError):  # the first error is the one to tell
            self._stream.close()

    def add(self, values: Mapping[str, float]) -> None:
        """One more frame; columns that ``values`` lacks stay empty."""
        words = (_word(c, values.get(c, math.nan)) for c in self._columns)
        with disk(self._folder / FRAMES):
            self._stream.write(','.join(words) + '\n')
            self._stream.flush()
        self.rows += 1

    def finish(self, facts: Mapping[str, Any]) -> None:
        """The part is whole."""
        data = {'conditions': self._conditions, 'frames': self.rows, 'facts': facts}
        write_text(self._folder / PART, json.dumps(data, indent=1) + '\n')


class disk:  # noqa: N801  # reads as the `with` statement it is
    """Turns an OSError inside into a VlaError that names the file and says what is kept."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            raise VlaError(
                f'{error.filename or self._path} cannot be written: {error.strerror}. The parts '
                'that are whole are kept: make room, and go on with --resume.'
            ) from error


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` in one step; VlaError where the disk does not take it."""
    draft = path.with_name(path.name + '.draft')
    with disk(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(text, encoding='utf-8')
            os.replace(draft, path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise


def read_part(folder: Path, conditions: Mapping[str, Any]) -> PartResult | None:
    """The part in ``folder``, None where there is none that is whole; ConfigError where it was
    made under other conditions.
    """
    if not (folder / PART).exists():
        return None
    try:
        data = json.loads((folder / PART).read_text(encoding='utf-8'))
        made_under, facts, rows = data['conditions'], data['facts'], data['frames']
        table = _read_table(folder / FRAMES)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f'{folder} cannot be read ({error}): delete it to do it anew.'
        ) from error
    for name, value in json.loads(json.dumps(conditions)).items():
        if made_under.get(name) != value:
            raise ConfigError(
                f'{folder} was made with {name} {made_under.get(name)!r}, this run has {value!r}: '
                'name another --out, or delete the folder.'
            )
    if len(table.values) != rows:
        raise ConfigError(
            f'{folder / FRAMES} holds {len(table.values)} of {rows} frames: delete the folder.'
        )
    return PartResult(made_under, table, facts)


def _read_table(path: Path) -> Table:
    with path.open(encoding='utf-8', newline='') as stream:
        rows = csv.reader(stream)
        columns = tuple(next(rows))
        values = array.array('d')  # a list of floats takes four times the memory
        for row in rows:
            values.extend(float(word) if word else math.nan for word in row)
    return Table(columns, np.frombuffer(values, np.float64).reshape(-1, len(columns)))


def _word(column: str, value: float) -> str:
    if not math.isfinite(value):
        return ''
    if column in ('start_ns', 'index', 'block'):
        return str(int(value))
    return f'{value:.6f}' if column == 't' else f'{value:.6g}'
