"""What one process keeps from case to case, and what it throws away."""

import pytest
from evaluation_fakes import CountingPolicy, FakeEnv, pipeline, setup, suite

from vla_trt_ros.errors import BackendError
from vla_trt_ros.evaluation.cases import Case
from vla_trt_ros.evaluation.station import Station


def station(made_envs, policies, setting=None, **env):
    def make(task, width, height):
        made_envs.append(FakeEnv(task, **env))
        return made_envs[-1]

    def make_pipeline(precision):
        policies[precision] = CountingPolicy()
        return pipeline(policies[precision])

    return Station(setting or setup(), suite=suite(make), make_pipeline=make_pipeline)


def case(task='reach', seed=0, precision='fp32', prompts='canonical'):
    return Case(task, 10, precision, prompts, seed)


def test_an_environment_serves_a_task_and_a_pipeline_a_precision():
    envs, policies = [], {}
    cases = [case(seed=1), case(seed=2), case('push'), case('push', precision='int8')]
    outcomes = list(station(envs, policies, solved_after=4).run_all(cases))
    assert [o.case for o in outcomes] == cases
    assert all(o.result.success and o.result.steps == 4 for o in outcomes)
    assert [e.task for e in envs] == ['reach', 'push']
    assert set(policies) == {'fp32', 'int8'}
    assert all(e.closed for e in envs)
    assert all(p.closed for p in policies.values())


def test_max_steps_is_the_suites_unless_it_is_given():
    assert station([], {}).run(case()).result.steps == 12
    assert station([], {}, setup(max_steps=3)).run(case()).result.steps == 3


def test_an_environment_that_broke_is_made_anew():
    envs = []
    made = station(envs, {}, broken_at=2)
    first, second = (made.run(case(seed=s)) for s in (1, 2))
    assert 'the physics diverged' in first.result.error
    assert second.result.seed == 2
    assert len(envs) == 2
    assert envs[0].closed


def test_the_words_are_those_of_the_way_of_prompting():
    policies = {}
    made = station([], policies)
    assert made.run(case(prompts='varied', seed=4)).told_task == 'reach'
    assert policies['fp32'].asked[-1][0].prompt == 'please reach'
    assert made.run(case(prompts='shuffled')).told_task == 'push'
    assert policies['fp32'].asked[-1][0].prompt == 'do push'


def test_what_no_episode_can_run_with_is_raised():
    def make(task, width, height):
        raise BackendError('libOSMesa is not installed')

    made = Station(setup(), suite=suite(make), make_pipeline=lambda precision: pipeline())
    with pytest.raises(BackendError, match='libOSMesa'):
        made.run(case())


@pytest.mark.parametrize(
    ('film', 'solved_after', 'expected'),
    [('first', 4, {(1, 'reach'), (1, 'push')}), ('failures', 4, set()), ('all', 0, None)],
)
def test_films(tmp_path, film, solved_after, expected):
    pytest.importorskip('av', reason="needs the sim extra: pip install '.[sim]'")
    setting = setup(video=str(tmp_path), film=film, first_seed=1)
    cases = [case(task, seed) for task in ('reach', 'push') for seed in (1, 2)]
    made = station([], {}, setting, solved_after=solved_after)
    assert all(o.result.steps == (solved_after or 12) for o in made.run_all(cases))
    names = {p.name for p in tmp_path.iterdir()}
    expected = {(c.seed, c.task) for c in cases} if expected is None else expected
    assert names == {f'{t}_fp32_10steps_canonical_{s}.mp4' for s, t in expected}
    assert all(p.stat().st_size > 500 for p in tmp_path.iterdir())
