"""Outcomes counted: one record per task, step count, precision and way of prompting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from vla_trt_ros.evaluation.cases import Group, Outcome, Setup
from vla_trt_ros.evaluation.precision_choice import stages_of
from vla_trt_ros.evaluation.prompting import PromptMode
from vla_trt_ros.evaluation.statistics import wilson

CLOCK = (
    'chunks_per_s: chunks over the wall clock of closed-loop episodes in one process, engines '
    'and drawing on one thread: rendering, preprocessing, inference, physics; not making scenes; '
    'inference: Pipeline.tick, camera frames on the host in, rows in robot units out'
)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must be equal for two records to speak of the same policy in the same test."""

    env: str
    bundle: str
    bundle_sha256: str
    hardware: str
    """Decides the times, and through rounding now and then an episode."""
    workers: int
    execute_rows: int
    delay_rows: int
    max_steps: int
    """Control steps; 0: the suite's."""
    image_size: tuple[int, int]
    """Width and height that a camera sends, pixels."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a results file."""

    task: str
    steps: int
    """Denoise steps."""
    precision: str
    stages: Mapping[str, str]
    """Stage to backend and precision."""
    prompts: PromptMode
    episodes: int
    successes: int
    success_rate: float
    interval95: tuple[float, float]
    """Wilson's score interval of the rate."""
    seeds: tuple[int, int]
    """First and last."""
    failed_seeds: tuple[int, ...]
    errors: int
    """Failed episodes that broke rather than ran out of time."""
    told: Mapping[str, tuple[int, int]]
    """Shuffled prompts: task whose words were heard to (successes, episodes)."""
    steps_to_success: float | None
    """Median of control steps over successful episodes."""
    chunks_per_s: float
    inference_p50_ms: float | None
    inference_p99_ms: float | None
    """None where every episode broke before its first chunk."""
    conditions: Conditions
    clock: str = CLOCK

    @property
    def group(self) -> Group:
        """Which cases it counts."""
        return Group(self.task, self.steps, self.precision, self.prompts)

    def as_json(self) -> dict[str, Any]:
        """Flat plain data: the conditions are fields like the others."""
        data = asdict(self)
        data['conditions'] = None
        flat: dict[str, Any] = {}
        for name, value in data.items():
            flat |= asdict(self.conditions) if name == 'conditions' else {name: value}
        return flat


def record_from_json(data: Mapping[str, Any]) -> Record:
    """What `Record.as_json` wrote, after a trip through JSON; KeyError or TypeError otherwise."""
    condition_names = [f.name for f in fields(Conditions)]
    conditions = {name: _tuples(data[name]) for name in condition_names}
    rest = {name: _tuples(v) for name, v in data.items() if name not in condition_names}
    rest['told'] = {task: tuple(counts) for task, counts in data['told'].items()}
    return Record(conditions=Conditions(**conditions), **rest)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def count(outcomes: Iterable[Outcome], setup: Setup, conditions: Conditions) -> list[Record]:
    """A record per group of ``outcomes``, in the order in which groups first come up."""
    groups: dict[Group, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.case.group, []).append(outcome)
    return [_record(group, found, setup, conditions) for group, found in groups.items()]


def _record(
    group: Group, outcomes: Sequence[Outcome], setup: Setup, conditions: Conditions
) -> Record:
    results = [o.result for o in outcomes]
    won = [r for r in results if r.success]
    seeds = sorted(r.seed for r in results)
    times = [ms for r in results for ms in r.inference_ms]
    seconds = sum(r.seconds for r in results)
    low, high = wilson(len(won), len(results))
    told: dict[str, tuple[int, int]] = {}
    if group.prompts == 'shuffled':
        for o in outcomes:
            successes, episodes = told.get(o.told_task, (0, 0))
            told[o.told_task] = (successes + o.result.success, episodes + 1)
    return Record(
        task=group.task,
        steps=group.num_steps,
        precision=group.precision,
        stages=stages_of(setup.platforms[group.precision]),
        prompts=group.prompts,
        episodes=len(results),
        successes=len(won),
        success_rate=round(len(won) / len(results), 4),
        interval95=(round(low, 4), round(high, 4)),
        seeds=(seeds[0], seeds[-1]),
        failed_seeds=tuple(sorted(r.seed for r in results if not r.success)),
        errors=sum(bool(r.error) for r in results),
        told=dict(sorted(told.items())),
        steps_to_success=float(np.median([r.steps for r in won])) if won else None,
        chunks_per_s=round(sum(r.chunks for r in results) / seconds, 2) if seconds else 0.0,
        inference_p50_ms=_percentile(times, 50),
        inference_p99_ms=_percentile(times, 99),
        conditions=conditions,
    )


def _percentile(values: Sequence[float], q: float) -> float | None:
    return round(float(np.percentile(values, q)), 3) if values else None
