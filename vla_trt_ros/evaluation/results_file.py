"""Results on disk: a JSON file of records, and beside it the episodes of a run that is not done.

The episodes lie in ``<name>.episodes.jsonl``, a line each, written as they end: whatever stops the
run loses nothing. A second run with ``resume`` does what is missing; a whole run removes the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.evaluation.cases import Case, Outcome, outcome_from_json
from vla_trt_ros.evaluation.records import Conditions, Record, record_from_json


class ResultsFile:
    """``path`` and its episodes, for a run under ``conditions``.

    ``resume`` reads both: `outcomes` are the episodes that are done, `records` those of the file.
    ConfigError where they cannot be read, were made under other conditions, or, without
    ``resume``, would be lost.
    """

    def __init__(self, path: Path, conditions: Conditions, *, resume: bool) -> None:
        self.path = path
        self.episodes_path = path.with_suffix('.episodes.jsonl')
        self._conditions = conditions
        self.records: list[Record] = []
        self.outcomes: tuple[Outcome, ...] = ()
        if resume:
            self.records = read_records(path) if path.exists() else []
            self.outcomes = self._read_episodes() if self.episodes_path.exists() else ()
        elif self.episodes_path.exists():
            raise ConfigError(
                f'{self.episodes_path} holds the episodes of a run that was stopped: go on with '
                '--resume, or delete it.'
            )
        self._stream: TextIO | None = None

    def missing(self, cases: Iterable[Case], seeds: range) -> list[Case]:
        """Those of ``cases``, which run on ``seeds``, that neither file answers."""
        counted = {r.group for r in self.answering(seeds)}
        done = {o.case for o in self.outcomes}
        return [c for c in cases if c.group not in counted and c not in done]

    def answering(self, seeds: range) -> list[Record]:
        """Records that the file held from the start, of these conditions and ``seeds``."""
        ours = (self._conditions, (seeds[0], seeds[-1]))
        return [r for r in self.records if (r.conditions, r.seeds) == ours]

    def add(self, outcome: Outcome) -> None:
        """Keep one more episode, on disk before this returns."""
        if self._stream is None:
            self._stream = self._open()
        self._stream.write(json.dumps(outcome.as_json()) + '\n')
        self._stream.flush()

    def finish(self, records: Sequence[Record]) -> list[Record]:
        """Write the file: those it had, less what ``records`` replace, and ``records``; drop the
        episodes. Returns what it now holds.
        """
        self.close()
        new = {(r.group, r.conditions) for r in records}
        self.records = [r for r in self.records if (r.group, r.conditions) not in new]
        self.records += records
        write_records(self.path, self.records)
        self.episodes_path.unlink(missing_ok=True)
        return self.records

    def close(self) -> None:
        """Close the file of episodes; it stays."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self) -> TextIO:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # What was read is written anew: a line that a crash cut short is gone.
            stream = self.episodes_path.open('w', encoding='utf-8')
            lines: list[Any] = [asdict(self._conditions), *(o.as_json() for o in self.outcomes)]
            stream.writelines(json.dumps(line) + '\n' for line in lines)
        except OSError as error:
            raise ConfigError(f'{error.filename} cannot be written: {error.strerror}.') from error
        return stream

    def _read_episodes(self) -> tuple[Outcome, ...]:
        lines = self.episodes_path.read_text(encoding='utf-8').splitlines(keepends=True)
        if lines and not lines[-1].endswith('\n'):
            del lines[-1]  # cut short by a crash
        if not lines:
            return ()
        try:
            made_under, *episodes = map(json.loads, lines)
            outcomes = tuple(outcome_from_json(e) for e in episodes)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f'{self.episodes_path} cannot be read ({error}): delete it to begin anew.'
            ) from error
        ours = json.loads(json.dumps(asdict(self._conditions)))
        for name, value in ours.items():
            if made_under.get(name) != value:
                raise ConfigError(
                    f'{self.episodes_path} was begun with {name} {made_under.get(name)}, this run '
                    f'has {value}: resume it as it was begun, or delete it.'
                )
        return outcomes


def read_records(path: Path) -> list[Record]:
    """The records of a results file; ConfigError where it is none."""
    try:
        data = json.loads(path.read_text(encoding='utf-8'))
        return [record_from_json(row) for row in data]
    except OSError as error:
        raise ConfigError(f'{path} cannot be read: {error.strerror}.') from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f'{path} is no results file of vla-trt sim eval ({error}): name another, or delete it.'
        ) from error


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Replace ``path`` in one step: a reader sees the old file or the new one."""
    text = json.dumps([r.as_json() for r in records], indent=1) + '\n'
    draft = path.with_suffix('.draft')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding='utf-8')
        os.replace(draft, path)
    except OSError as error:
        raise ConfigError(f'{path} cannot be written: {error.strerror}.') from error
