"""Records as tables for a terminal, and how far success falls under another task's prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from vla_trt_ros.evaluation.prompting import PromptMode
from vla_trt_ros.evaluation.records import Record
from vla_trt_ros.evaluation.statistics import wilson
from vla_trt_ros.tables import grid

MEAN = 'mean'
"""Stands for all tasks where a task's name would be."""


@dataclass(frozen=True, slots=True)
class Success:
    """A success rate to show: of a task, or with task `MEAN` of all."""

    task: str
    steps: int
    precision: str
    prompts: PromptMode
    episodes: int
    success_rate: float
    interval95: tuple[float, float]


def means(records: Iterable[Record]) -> list[Success]:
    """Over the tasks, each weighing the same; the interval is that of all episodes together."""
    found: dict[tuple[PromptMode, str, int], list[Record]] = {}
    for r in records:
        found.setdefault((r.prompts, r.precision, r.steps), []).append(r)
    rows = []
    for (prompts, precision, steps), group in found.items():
        episodes = sum(r.episodes for r in group)
        interval = wilson(sum(r.successes for r in group), episodes)
        rate = sum(r.successes / r.episodes for r in group) / len(group)
        rows.append(Success(MEAN, steps, precision, prompts, episodes, rate, interval))
    return rows


def tables(records: Sequence[Record]) -> list[str]:
    """A table per way of prompting and precision: a row per task, a column per step count."""
    lines: list[str] = []

    def setting(r: Record) -> tuple[str, str]:
        return r.prompts, r.precision

    for _, rows in groupby(sorted(records, key=setting), setting):
        lines += [*_table(list(rows)), '']
    return lines[:-1]


def broken(records: Iterable[Record]) -> list[str]:
    """A line for each record with episodes that broke."""
    return [
        f'{r.task}, {_steps(r.steps)}, {r.precision}: {r.errors} of {r.episodes} episodes broke '
        'and count as failed'
        for r in records
        if r.errors
    ]


def falls(records: Sequence[Record], look_alike: Sequence[str]) -> list[str]:
    """What another task's words do to success, a line per precision and step count: over all
    tasks, and among ``look_alike`` scenes told the words of another of these. Beside it, success
    with the task's own words, where ``records`` have it.
    """
    lines = []
    straight = [r for r in records if r.prompts == 'canonical']
    for mean in means(r for r in records if r.prompts == 'shuffled'):
        setting = (mean.precision, mean.steps)
        own = [r for r in straight if (r.precision, r.steps) == setting]
        lines.append(
            f'{mean.precision}, {_steps(mean.steps)}, told another task: {_cell(mean)}'
            + ''.join(f'; told its own: {_cell(m)}' for m in means(own))
        )
        alike = [
            counts
            for r in records
            if r.prompts == 'shuffled' and (r.precision, r.steps) == setting
            if r.task in look_alike
            for task, counts in r.told.items()
            if task in look_alike
        ]
        if alike:
            own = [r for r in own if r.task in look_alike]
            lines.append(
                f'  look-alike scenes ({", ".join(look_alike)}), told another of these: '
                f'{_share(sum(s for s, _ in alike), sum(n for _, n in alike))}'
                + ''.join(f'; told its own: {_cell(m)}' for m in means(own))
            )
    return lines


def _table(records: list[Record]) -> list[str]:
    first = records[0]
    steps = sorted({r.steps for r in records})
    tasks = list(dict.fromkeys(r.task for r in records))
    found = {(r.task, r.steps): r for r in records}
    averages = {m.steps: m for m in means(records)}
    header = ['task', *map(_steps, steps)]
    rows = [header]
    rows += [[t, *(_cell(found.get((t, n))) for n in steps)] for t in tasks]
    if len(tasks) > 1:
        rows.append([MEAN, *(_cell(averages[n]) for n in steps)])
    columns = [[r for r in records if r.steps == n] for n in steps]
    rows += [
        ['chunks/s, one process', *(_average(r.chunks_per_s for r in c) for c in columns)],
        ['inference p50, ms', *(_average(r.inference_p50_ms for r in c) for c in columns)],
        ['inference p99, ms', *(_average(r.inference_p99_ms for r in c) for c in columns)],
    ]
    low, high = min(r.seeds[0] for r in records), max(r.seeds[1] for r in records)
    stages = ', '.join(f'{stage} {how}' for stage, how in first.stages.items())
    c = first.conditions
    return [
        f'{first.precision}, {first.prompts} prompts, seeds {low} to {high}: '
        'success in %, [95 % interval], of episodes',
        f'{c.bundle} ({stages}), {c.image_size[0]}x{c.image_size[1]}, {c.execute_rows} rows '
        f'executed, {c.delay_rows} late; {c.hardware}, {c.workers} at a time',
        *grid(rows),
    ]


def _steps(number: int) -> str:
    return f'{number} step{"s"[: number > 1]}'


def _cell(row: Record | Success | None) -> str:
    if row is None:
        return '-'
    return _percent(row.success_rate, row.interval95, row.episodes)


def _share(successes: int, episodes: int) -> str:
    return _percent(successes / episodes, wilson(successes, episodes), episodes)


def _percent(rate: float, interval: tuple[float, float], episodes: int) -> str:
    low, high = (100 * end for end in interval)
    return f'{100 * rate:.1f} [{low:.0f}, {high:.0f}] of {episodes}'


def _average(values: Iterable[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f'{sum(known) / len(known):.1f}' if known else '-'
