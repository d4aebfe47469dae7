"""Simulators by name, with what an evaluation asks of one besides the environment itself.

A row is light: the simulator is imported when ``make`` is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.sim.env import Environment
from vla_trt_ros.sim.prompts import BENCHMARK_TASKS, prompts_for, task_name
from vla_trt_ros.sim.seeds import HELD_OUT_FROM, check_evaluation_seeds

SUITES = {
    'metaworld': 'vla_trt_ros.sim.suites:METAWORLD',
    'libero': 'vla_trt_ros.sim.libero_suite:LIBERO',
}
"""Name to 'module:attribute' of a `Suite`."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A simulator's tasks and how an episode of one is run."""

    name: str
    robot: str
    """File of config/robots."""
    default_tasks: tuple[str, ...]
    tasks_of: Callable[[str], tuple[str, ...]]
    """A word of --tasks as task names (one, or all of a group); ConfigError for an unknown one."""
    prompts_of: Callable[[str], tuple[str, ...]]
    """A task's phrasings, the canonical one first."""
    max_steps_of: Callable[[str], int]
    """Control steps after which an episode of the task counts as failed."""
    make: Callable[[str, int, int], Environment]
    """(task, width, height of the pictures) to its environment."""
    look_alike: tuple[str, ...] = ()
    """Tasks whose scenes look the same, so that the prompt alone tells them apart."""
    policy: str = 'pi05'
    """File of config/policies."""
    image_size: tuple[int, int] = (224, 224)
    """Width and height that a camera sends, pixels."""
    execute_rows: int = 5
    """Rows of a chunk that are executed before the next inference, by default."""
    first_seed: int = HELD_OUT_FROM
    check_seeds: Callable[[range], None] = check_evaluation_seeds
    """ConfigError for seeds that a policy may have been trained on."""


def load_suite(name: str) -> Suite:
    """A row of SUITES; ConfigError names the choices."""
    if name not in SUITES:
        raise ConfigError(f'--env {name!r} is none of {", ".join(SUITES)}.')
    module, _, attribute = SUITES[name].partition(':')
    suite: Suite = getattr(import_module(module), attribute)
    return suite


def _make_metaworld(task: str, width: int, height: int) -> Environment:
    from vla_trt_ros.sim.metaworld import MetaWorld

    return MetaWorld(task, width=width, height=height)


METAWORLD = Suite(
    name='metaworld',
    robot='metaworld',
    default_tasks=BENCHMARK_TASKS,
    tasks_of=lambda word: (task_name(word),),
    prompts_of=prompts_for,
    # The teacher's slowest of 210 episodes takes 180, its median is 28 to 86 by task: there is
    # time to miss once and try again.
    max_steps_of=lambda task: 250,
    make=_make_metaworld,
    look_alike=('reach', 'push', 'pick-place'),
)
