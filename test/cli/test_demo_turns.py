import argparse
import json

import pytest

from vla_trt_ros.cli.demo import _plan, add_arguments
from vla_trt_ros.cli.demo_report import table, write_records
from vla_trt_ros.cli.demo_turns import Played, chunk_rate, solved, tally, turns
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.sim.prompts import BENCHMARK_TASKS
from vla_trt_ros.sim.seeds import HELD_OUT_FROM


def played(turn, success, seconds, *, chunks=40, finished=True):
    return Played(turn, success, seconds, chunks=chunks, switch=0.5, finished=finished)


def test_turns_go_task_by_task_on_the_same_seeds_once_per_step_count():
    plan = turns(['reach', 'pick-place-v3'], seed=7, steps=[10, 1], limit=4.0, episodes=2)
    assert [(t.num_steps, t.task, t.seed) for t in plan] == [
        (n, task, seed) for n in (10, 1) for task in ('reach', 'pick-place') for seed in (7, 8)
    ]
    assert plan[0].prompt == 'reach the goal'
    assert plan[2].prompt == 'pick up the puck and place it at the goal'
    assert {t.limit for t in plan} == {4.0}


def test_a_prompt_of_ones_own_is_told_on_every_scene():
    plan = turns(['reach', 'push'], seed=0, steps=[1], limit=1.0, prompt='wave')
    assert [t.prompt for t in plan] == ['wave', 'wave']


def test_an_unknown_task_is_named():
    with pytest.raises(ConfigError, match="did you mean 'reach'"):
        turns(['reech'], seed=0, steps=[1], limit=1.0)


def test_tally_counts_finished_turns_per_task_and_steps():
    reach = turns(['reach'], seed=900, steps=[10], limit=5.0, episodes=4)
    push = turns(['push'], seed=900, steps=[10], limit=5.0)[0]
    outcomes = [
        played(reach[0], True, 2.0),
        played(reach[1], False, 5.0),
        played(reach[2], True, 3.0),
        played(push, False, 5.0),
        played(reach[3], False, 1.0, finished=False),
    ]
    first, second = tally(outcomes)
    assert (first['task'], first['steps'], first['episodes'], first['successes']) == (
        'reach',
        10,
        3,
        2,
    )
    assert first['seeds'] == [900, 902]
    assert first['failed_seeds'] == [901]
    assert first['seconds_to_success'] == 2.5
    assert first['success_rate'] == pytest.approx(0.6667)
    assert first['chunks_per_s'] == 12.0
    low, high = first['interval95']
    assert 0.0 < low < 2 / 3 < high < 1.0
    assert (second['task'], second['successes'], second['seconds_to_success']) == ('push', 0, None)
    assert solved(outcomes) == (2, 4)
    assert chunk_rate(outcomes) == 200 / 16.0
    assert chunk_rate([]) == 0.0
    lines = table([first, second])
    assert '2/3' in lines[1]
    assert lines[1].endswith('2.5')
    assert lines[2].endswith('-')


def test_records_carry_what_they_were_measured_with(tmp_path):
    turn = turns(['reach'], seed=900, steps=[3], limit=5.0)[0]
    summary = {
        'hardware': 'a computer',
        'bundle': 'nano',
        'bundle_sha256': 'f' * 64,
        'runtime': 'onnxruntime 1.2',
        'platform': 'cpu',
        'precision': 'fp32',
        'stages': {'vision': 'onnxruntime fp32'},
        'tasks': tally([played(turn, True, 2.0)]),
    }
    path = write_records(summary, tmp_path / 'new' / 'live.json')
    (record,) = json.loads(path.read_text())['records']
    assert (record['loop'], record['task'], record['bundle']) == ('live', 'reach', 'nano')
    assert (record['steps'], record['precision']) == (3, 'fp32')
    assert 'DDS' in record['clock']


def planned(*words, **given):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return _plan(parser.parse_args(words), given)


def test_by_default_every_task_is_played_once_on_a_held_out_scene_and_all_fit():
    plan = planned()
    assert sorted(t.task for t in plan) == sorted(BENCHMARK_TASKS)
    assert [t.task for t in plan[:2]] == ['reach', 'pick-place']
    assert {t.seed for t in plan} == {HELD_OUT_FROM}
    assert {t.num_steps for t in plan} == {10}
    assert 50 < sum(t.limit for t in plan) < 75


def test_an_evaluation_gives_each_episode_its_250_control_steps():
    plan = planned('--tasks', 'reach,push', '--episodes', '50', num_steps='3')
    assert len(plan) == 100
    assert {t.limit for t in plan} == {12.5}
    assert {t.num_steps for t in plan} == {3}
    assert plan[49].seed == HELD_OUT_FROM + 49


def test_a_short_demo_shares_its_seconds():
    assert [t.limit for t in planned('--seconds', '10', '--tasks', 'reach,push')] == [3.0, 3.0]
    assert [t.task for t in planned(task='drawer-open')] == ['drawer-open']
    with pytest.raises(ConfigError, match='not both'):
        planned('--tasks', 'reach', task='push')
