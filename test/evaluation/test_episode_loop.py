"""The loop: which row of which chunk moves the arm when, and what an episode comes to."""

import numpy as np
import pytest
from evaluation_fakes import CountingPolicy, FakeEnv, pipeline

from vla_trt_ros.errors import BackendError, BadPrompt, ConfigError
from vla_trt_ros.evaluation.episode import run_episode

HELD = 0.5
"""The gripper of FakeEnv.hold_target."""


def run(env, made=None, **given):
    given = {'seed': 7, 'num_steps': 10, 'prompt': 'reach the goal', 'max_steps': 12, **given}
    return run_episode(env, made or pipeline(), **given)


def grippers(env):
    return [round(float(t[3]), 4) for t in env.applied]


def test_the_first_rows_of_each_chunk_are_executed_from_the_moment_it_was_seen():
    env = FakeEnv()
    result = run(env, execute_rows=5)
    assert grippers(env) == [0.0, 0.01, 0.02, 0.03, 0.04, 0.1, 0.11, 0.12, 0.13, 0.14, 0.2, 0.21]
    assert env.rendered == [0, 0, 5, 10]  # once before the clock starts
    assert (result.steps, result.chunks, len(result.inference_ms)) == (12, 3, 3)
    assert not result.success
    assert not result.error


def test_a_late_chunk_skips_the_rows_that_are_over_while_those_before_it_go_on():
    env = FakeEnv()
    run(env, execute_rows=5, delay_rows=2)
    before, first = [HELD, HELD], [0.02, 0.03, 0.04, 0.05, 0.06]
    assert grippers(env) == [*before, *first, 0.12, 0.13, 0.14, 0.15, 0.16]


def test_chunks_may_be_on_their_way_for_longer_than_one_lasts():
    env = FakeEnv()
    run(env, execute_rows=2, delay_rows=5, max_steps=10)
    assert grippers(env) == [*[HELD] * 5, 0.05, 0.06, 0.15, 0.16, 0.25]


def test_a_chunk_starts_where_the_hand_was_when_it_was_seen():
    env = FakeEnv()
    run(env, execute_rows=5)
    np.testing.assert_allclose([t[0] for t in env.applied], [0.0] * 5 + [0.005] * 5 + [0.01] * 2)
    assert all(t.dtype == np.float64 and t.shape == (4,) for t in env.applied)


def test_columns_go_by_name():
    env = FakeEnv()
    env.joint_names = ('gripper', 'hand_z', 'hand_y', 'hand_x')
    run(env, max_steps=1)
    np.testing.assert_allclose(env.applied[0], [0.0, 0.2, 0.6, 0.0])


def test_success_ends_it():
    env = FakeEnv(solved_after=6)
    result = run(env)
    assert result.success
    assert (result.steps, result.chunks) == (6, 2)
    assert (result.task, result.seed, result.prompt) == ('reach', 7, 'reach the goal')


def test_each_episode_has_its_own_scene_and_noise():
    env, policy = FakeEnv(), CountingPolicy()
    made = pipeline(policy)
    for seed in (900_000, 900_001):
        run(env, made, seed=seed, max_steps=1, num_steps=3)
    assert env.seeds == [900_000, 900_001]
    assert policy.seeds[-1] == 900_001
    assert 900_000 in policy.seeds
    assert [steps for _, steps in policy.asked] == [3, 3]
    assert policy.asked[0][0].stamp_ns == policy.asked[1][0].stamp_ns


@pytest.mark.parametrize(
    ('env', 'word'),
    [
        (FakeEnv(broken_at=3), 'step 3: FloatingPointError: the physics diverged'),
        (FakeEnv(blind_at=5), 'step 5: BadInput: BAD_STATE: joint_states: joint state of hand_x'),
    ],
    ids=['physics', 'joints'],
)
def test_an_episode_that_breaks_is_a_failed_one_and_says_why(env, word):
    result = run(env)
    assert word in result.error
    assert not result.success
    made = pipeline()
    assert not run(FakeEnv(), made).error


def test_nan_from_the_policy_breaks_the_episode_alone():
    policy = CountingPolicy()
    made = pipeline(policy)
    policy.fault = BackendError('engine refused')
    assert 'step 0: BackendError: engine refused' in run(FakeEnv(), made).error
    policy.fault = None
    assert run(FakeEnv(solved_after=2), made).success


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'execute_rows': 0}, 'execute_rows 0: one row at least'),
        ({'delay_rows': -1}, 'delay_rows -1 is negative'),
        ({'execute_rows': 8, 'delay_rows': 3}, 'need 11 rows; a chunk of this policy has 10'),
        ({'num_steps': 4}, 'num_steps 4 is not in this bundle'),
    ],
)
def test_what_cannot_be_run_is_refused_before_the_scene_is_made(given, message):
    env = FakeEnv()
    with pytest.raises(ConfigError, match=message):
        run(env, **given)
    assert not env.seeds


def test_a_scene_that_there_is_not_is_refused():
    class Few(FakeEnv):
        def reset(self, seed):
            raise ConfigError('seed 7: there are states 0 to 3.')

    with pytest.raises(ConfigError, match='seed 7: there are states 0 to 3'):
        run(Few())


def test_an_empty_prompt_and_another_robot_are_refused():
    with pytest.raises(BadPrompt, match='empty'):
        run(FakeEnv(), prompt=' ')
    env = FakeEnv()
    env.joint_names = ('a', 'b')
    with pytest.raises(ConfigError, match='task reach moves a, b; robot metaworld has hand_x'):
        run(env)
