"""Which episodes an evaluation consists of, and how each went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from vla_trt_ros.config import PlatformConfig
from vla_trt_ros.evaluation.episode import EpisodeResult
from vla_trt_ros.evaluation.prompting import PromptMode


@dataclass(frozen=True, slots=True)
class Setup:
    """What all episodes of an evaluation share."""

    env: str
    """Row of sim.suites."""
    bundle: str
    """Path of the bundle."""
    platforms: Mapping[str, PlatformConfig]
    """Precision, as cases name it, to how the stages run."""
    tasks: tuple[str, ...]
    image_size: tuple[int, int] = (224, 224)
    """Width and height that a camera sends, pixels."""
    execute_rows: int = 5
    delay_rows: int = 0
    max_steps: int = 0
    """Control steps of an episode at most; 0: the suite's."""
    video: str = ''
    """Folder of the films; '': none."""
    film: str = 'first'
    """Which episodes are filmed: 'first' (of each task), 'failures' or 'all'."""
    first_seed: int = 0
    """The one that film 'first' means."""


@dataclass(frozen=True, slots=True)
class Case:
    """One episode to be run."""

    task: str
    num_steps: int
    """Denoise steps."""
    precision: str
    prompts: PromptMode
    seed: int

    @property
    def group(self) -> Group:
        """The record that it counts in."""
        return Group(self.task, self.num_steps, self.precision, self.prompts)


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that differ in the seed alone: one record."""

    task: str
    num_steps: int
    precision: str
    prompts: PromptMode


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case went. ``told_task`` is the task whose words the policy heard."""

    case: Case
    told_task: str
    result: EpisodeResult

    def as_json(self) -> dict[str, Any]:
        """Plain data for a line of JSON; `outcome_from_json` is the inverse."""
        result = asdict(self.result)
        result['inference_ms'] = [round(ms, 3) for ms in self.result.inference_ms]
        return {'case': asdict(self.case), 'told_task': self.told_task, 'result': result}


def outcome_from_json(data: Mapping[str, Any]) -> Outcome:
    """What `Outcome.as_json` wrote; KeyError or TypeError for anything else."""
    result = dict(data['result'])
    result['inference_ms'] = tuple(result['inference_ms'])
    return Outcome(Case(**data['case']), str(data['told_task']), EpisodeResult(**result))


def all_cases(
    tasks: Sequence[str],
    steps: Sequence[int],
    precisions: Sequence[str],
    prompts: Sequence[PromptMode],
    seeds: range,
) -> list[Case]:
    """Every combination, one task after another: a process then makes each scene once."""
    order = product(tasks, prompts, precisions, steps, seeds)
    return [Case(task, n, precision, mode, seed) for task, mode, precision, n, seed in order]
