"""How an evaluation runs LIBERO: as openpi does."""

from __future__ import annotations

from vla_trt_ros.sim.env import Environment
from vla_trt_ros.sim.libero_tasks import check_trials, language_of, max_steps_of, tasks_of
from vla_trt_ros.sim.suites import Suite


def _make(task: str, width: int, height: int) -> Environment:
    from vla_trt_ros.sim.libero import Libero

    return Libero(task, width=width, height=height)


LIBERO = Suite(
    name='libero',
    robot='libero',
    policy='pi05_libero',
    default_tasks=tasks_of('libero_spatial'),
    tasks_of=tasks_of,
    prompts_of=lambda task: (language_of(task),),
    max_steps_of=max_steps_of,
    make=_make,
    image_size=(256, 256),
    execute_rows=5,
    # Seeds are numbers of LIBERO's initial states: episode k begins in the k-th.
    first_seed=0,
    check_seeds=check_trials,
)
