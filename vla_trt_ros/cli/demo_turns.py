"""What a demo plays, turn by turn, and how it went: plain data, no ROS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_trt_ros.evaluation.statistics import wilson
from vla_trt_ros.sim.prompts import prompt_for, task_name


@dataclass(frozen=True, slots=True)
class Turn:
    """One episode to be played: a scene, what the policy is told, and how long it may take."""

    task: str
    seed: int
    prompt: str
    num_steps: int
    """Denoise steps of its chunks."""
    limit: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Played:
    """How a turn went."""

    turn: Turn
    success: bool
    seconds: float
    """From the first command that could move the arm to success, or to the end."""
    chunks: int
    """Heard in these seconds."""
    switch: float
    """Seconds before: scene loaded, prompt told, first chunk of both there."""
    finished: bool = True
    """False: cut short by the end of the demo, so it counts for nothing."""


def turns(
    tasks: Sequence[str],
    *,
    seed: int,
    steps: Sequence[int],
    limit: float,
    episodes: int = 1,
    prompt: str = '',
) -> list[Turn]:
    """Every task on seeds ``seed`` + k, once per step count; ConfigError for an unknown task.

    All tasks get the same seeds, so those whose scenes look alike (reach, pick-place) really show
    the same scene. ``prompt`` empty: each task's own words.
    """
    names = [task_name(task) for task in tasks]
    return [
        Turn(name, seed + k, prompt or prompt_for(name), n, limit)
        for n in steps
        for name in names
        for k in range(episodes)
    ]


def tally(played: Iterable[Played]) -> list[dict[str, Any]]:
    """A record per task and step count, of the finished turns, in the order they first came up.

    Names and meanings are those of `evaluation.records.Record`, where both have them.
    """
    groups: dict[tuple[str, int], list[Played]] = {}
    for one in played:
        if one.finished:
            groups.setdefault((one.turn.task, one.turn.num_steps), []).append(one)
    return [_record(task, steps, found) for (task, steps), found in groups.items()]


def solved(played: Iterable[Played]) -> tuple[int, int]:
    """Successes and episodes among the finished turns."""
    finished = [one.success for one in played if one.finished]
    return sum(finished), len(finished)


def chunk_rate(played: Iterable[Played]) -> float:
    """Chunks per second while the arm was free to move; 0 where it never was."""
    played = list(played)
    seconds = sum(one.seconds for one in played)
    return sum(one.chunks for one in played) / seconds if seconds else 0.0


def _record(task: str, steps: int, played: list[Played]) -> dict[str, Any]:
    won = [one.seconds for one in played if one.success]
    low, high = wilson(len(won), len(played))
    seeds = sorted(one.turn.seed for one in played)
    return {
        'task': task,
        'steps': steps,
        'prompt': played[0].turn.prompt,
        'episodes': len(played),
        'successes': len(won),
        'success_rate': round(len(won) / len(played), 4),
        'interval95': [round(low, 4), round(high, 4)],
        'seeds': [seeds[0], seeds[-1]],
        'failed_seeds': sorted(one.turn.seed for one in played if not one.success),
        'seconds_to_success': round(float(np.median(won)), 2) if won else None,
        'limit_s': played[0].turn.limit,
        'chunks_per_s': round(chunk_rate(played), 2),
    }
