"""Someone who knows the answer, in the policy's place: the loop itself must not cost success."""

import numpy as np
import pytest
from evaluation_fakes import pipeline
from fakes import FakePolicy

from vla_trt_ros.datatypes import PolicyResult, StageTimes
from vla_trt_ros.evaluation.episode import run_episode
from vla_trt_ros.sim.prompts import BENCHMARK_TASKS, prompt_for
from vla_trt_ros.sim.seeds import HELD_OUT_FROM

pytestmark = pytest.mark.usefixtures('simulator')


class Oracle(FakePolicy):
    """Answers with what the teacher would command, in the columns of a bundle: hand relative to
    the state it was shown, gripper absolute.
    """

    def __init__(self, env) -> None:
        super().__init__()
        from vla_trt_ros.sim.teacher import Teacher

        self._teacher = Teacher(env)

    def infer(self, observation, *, num_steps, noise=None) -> PolicyResult:
        rows = self._teacher.chunk(self.horizon)
        rows[:, :3] -= observation.state[:3]
        return PolicyResult(rows, StageTimes(), 3)


@pytest.fixture
def episode():
    from vla_trt_ros.sim.metaworld import MetaWorld

    made = []

    def run(task, seed, **given):
        env = MetaWorld(task, width=32, height=32)
        made.append(env)
        return run_episode(
            env,
            pipeline(Oracle(env)),
            seed=seed,
            num_steps=10,
            prompt=prompt_for(task),
            **given,
        )

    yield run
    for env in made:
        env.close()


@pytest.mark.parametrize(
    'late', [{}, {'execute_rows': 5, 'delay_rows': 3}], ids=['lockstep', 'late']
)
def test_it_solves_reach_at_once_and_the_same_way_twice(episode, late):
    first = episode('reach', HELD_OUT_FROM, **late)
    assert not first.error
    assert first.success
    assert first.steps < 100
    assert first.chunks == -(-first.steps // 5)
    again = episode('reach', HELD_OUT_FROM, **late)
    assert (again.success, again.steps, again.chunks) == (True, first.steps, first.chunks)


@pytest.mark.slow
@pytest.mark.parametrize('task', BENCHMARK_TASKS)
def test_it_solves_every_task_well_within_an_episode(episode, task):
    results = [episode(task, HELD_OUT_FROM + k, delay_rows=3 * (k % 2)) for k in range(4)]
    assert [r.success for r in results] == [True] * 4
    assert max(r.steps for r in results) < 200


def test_it_grips_and_carries(episode):
    assert episode('pick-place', HELD_OUT_FROM).success


def test_it_fails_where_its_rows_are_anothers(episode):

    class Wrong(Oracle):
        def infer(self, observation, *, num_steps, noise=None):
            result = super().infer(observation, num_steps=num_steps)
            return PolicyResult(np.ascontiguousarray(-result.actions), result.times, 3)

    from vla_trt_ros.sim.metaworld import MetaWorld

    env = MetaWorld('reach', width=32, height=32)
    try:
        result = run_episode(
            env, pipeline(Wrong(env)), seed=HELD_OUT_FROM, num_steps=10, prompt='go', max_steps=60
        )
    finally:
        env.close()
    assert not result.success
    assert result.steps == 60
