"""LIBERO's tasks by name: 'libero_spatial/3', a suite of them, or the words that a policy is told.

Which tasks a suite has is read from the installed hf-libero, without importing it: importing it
asks questions and loads torch.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import runpy
from pathlib import Path

from vla_trt_ros.errors import BackendError, ConfigError

INSTALL = 'pip install -c constraints.txt ".[libero]"'

# As openpi evaluates: a little more than the longest demonstration of a suite.
MAX_STEPS = {
    'libero_spatial': 220,
    'libero_object': 280,
    'libero_goal': 300,
    'libero_10': 520,
    'libero_90': 400,
}
COUNTS = {suite: 90 if suite == 'libero_90' else 10 for suite in MAX_STEPS}
"""Tasks of each suite."""

TRIALS = 50
"""Initial states that LIBERO fixes for each task: episode k begins in the k-th."""


def tasks_of(word: str) -> tuple[str, ...]:
    """Task names that a word stands for: all of a suite, one by name, or one by its language.

    ConfigError for an unknown one, with what is nearest, and for a language of several tasks.
    """
    word = word.strip()
    suite, slash, _ = word.partition('/')
    if suite in COUNTS:
        names = tuple(f'{suite}/{i}' for i in range(COUNTS[suite]))
        if not slash:
            return names
        if word in names:
            return (word,)
        raise ConfigError(f'task {word!r}: {suite} has tasks 0 to {len(names) - 1}.')
    if slash or ' ' not in word:
        raise ConfigError(
            f'task {word!r} is none of LIBERO; give a suite ({", ".join(COUNTS)}), one task such '
            'as libero_spatial/0, or its words.'
        )
    words = {name: language_of(name) for one in COUNTS for name in tasks_of(one)}
    found = [name for name, language in words.items() if language == word.lower()]
    if len(found) > 1:
        raise ConfigError(f'task {word!r} is several: choose one of {", ".join(found)}.')
    if not found:
        near = difflib.get_close_matches(word.lower(), words.values(), n=1, cutoff=0.0)
        raise ConfigError(f'task {word!r} is none of LIBERO; did you mean {near[0]!r}?')
    return tuple(found)


def language_of(task: str) -> str:
    """What a policy is told for a task such as 'libero_10/2'; BackendError without hf-libero."""
    return re.sub(r'^[A-Z_]+_SCENE\d+_', '', file_stem(task)).replace('_', ' ')


def max_steps_of(task: str) -> int:
    """Control steps after which openpi counts an episode as failed."""
    return MAX_STEPS[task.partition('/')[0]]


def file_stem(task: str) -> str:
    """Name of a task's files in LIBERO, less the suffix."""
    suite, _, index = task.partition('/')
    return task_table(package_dir())[suite][int(index)]


def check_trials(seeds: range) -> None:
    """ConfigError unless every seed is one of LIBERO's initial states."""
    for seed in (seeds[0], seeds[-1]) if seeds else ():
        if not 0 <= seed < TRIALS:
            raise ConfigError(
                f'seed {seed}: LIBERO has {TRIALS} initial states a task, 0 to {TRIALS - 1}; '
                'choose --seed and --episodes within them.'
            )


def package_dir() -> Path:
    """Where hf-libero keeps its tasks; BackendError where it is not installed."""
    spec = importlib.util.find_spec('libero')
    for place in (spec and spec.submodule_search_locations) or ():
        path = Path(place) / 'libero'
        if _table_path(path).is_file():
            return path
    raise BackendError(
        f'LIBERO is not installed: run `{INSTALL}`, best in an environment of its own '
        '(docs/howto/libero.md).'
    )


def task_table(package: Path) -> dict[str, list[str]]:
    """Suite to its tasks' file names, in LIBERO's order. BackendError: not as in hf-libero."""
    path = _table_path(package)
    table: dict[str, list[str]] = runpy.run_path(str(path)).get('libero_task_map', {})
    for suite, count in COUNTS.items():
        if len(table.get(suite, ())) != count:
            raise BackendError(
                f'{path} has {len(table.get(suite, ()))} tasks of {suite}, not {count}: '
                'install the hf-libero of constraints.txt.'
            )
    return table


def _table_path(package: Path) -> Path:
    return package / 'benchmark' / 'libero_suite_task_map.py'
