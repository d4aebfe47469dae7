"""Episodes counted, told in tables, and read again from JSON."""

import json

import pytest
from evaluation_fakes import CONDITIONS, outcome, setup

from vla_trt_ros.evaluation.cases import all_cases, outcome_from_json
from vla_trt_ros.evaluation.records import count, record_from_json
from vla_trt_ros.evaluation.report import broken, falls, means, tables

OUTCOMES = [
    outcome(seed=900_000, steps=40, chunks=8, seconds=1.0, inference_ms=(10.0,) * 8),
    outcome(seed=900_001, steps=60, chunks=12, seconds=1.0, inference_ms=(20.0,) * 12),
    outcome(
        seed=900_002, success=False, steps=3, chunks=0, seconds=0.5, inference_ms=(), error='x'
    ),
    outcome(seed=900_000, task='push', success=False),
]


def counted(outcomes):
    return count(outcomes, setup(), CONDITIONS)


def test_a_record_per_group():
    reach, push = counted(OUTCOMES)
    assert (reach.task, reach.episodes, reach.successes, reach.errors) == ('reach', 3, 2, 1)
    assert reach.success_rate == 0.6667
    assert reach.interval95 == (0.2077, 0.9385)
    assert reach.seeds == (900_000, 900_002)
    assert reach.failed_seeds == (900_002,)
    assert reach.steps_to_success == 50.0
    assert reach.chunks_per_s == 8.0
    assert reach.inference_p50_ms == 20.0
    assert reach.stages['denoise'] == 'onnxruntime fp32'
    assert reach.told == {}
    assert (push.successes, push.steps_to_success) == (0, None)


def test_a_group_that_never_came_to_a_chunk_has_no_times():
    [record] = counted([outcome(success=False, chunks=0, seconds=0.0, inference_ms=(), error='x')])
    assert record.inference_p50_ms is None
    assert record.chunks_per_s == 0.0
    assert '-' in '\n'.join(tables([record]))
    assert broken([record]) == ['reach, 10 steps, fp32: 1 of 1 episodes broke and count as failed']


def test_json_and_back():
    records = counted([*OUTCOMES, outcome(told='push', prompts='shuffled')])
    flat = [r.as_json() for r in records]
    assert flat[0]['bundle_sha256'] == 'f' * 64
    assert not any(isinstance(v, dict) for k, v in flat[0].items() if k not in ('stages', 'told'))
    assert [record_from_json(row) for row in json.loads(json.dumps(flat))] == records
    for o in OUTCOMES:
        assert outcome_from_json(json.loads(json.dumps(o.as_json()))) == o


def test_the_table_has_a_row_for_each_task_and_their_mean():
    more = [outcome(num_steps=1, success=False), outcome(task='push', num_steps=1)]
    text = '\n'.join(tables(counted([*OUTCOMES, *more])))
    assert 'fp32, canonical prompts, seeds 900000 to 900002' in text
    assert '66.7 [21, 94] of 3' in text
    [mean] = [line.split() for line in text.splitlines() if line.startswith('mean')]
    assert mean[:1] + mean[1::5] == ['mean', '50.0', '33.3']  # each task weighs the same
    assert text.index(' 1 step ') < text.index('10 steps')


def test_mean_of_one_precision_does_not_mix_with_another():
    records = counted([outcome(), outcome(precision='fp32', prompts='varied', success=False)])
    assert [(m.prompts, m.success_rate) for m in means(records)] == [
        ('canonical', 1.0),
        ('varied', 0.0),
    ]


def test_how_far_success_falls_under_another_tasks_words():
    straight = [outcome(task=t, seed=s) for t in ('reach', 'push', 'door') for s in (1, 2)]
    twisted = [
        outcome('reach', 1, False, told='push', prompts='shuffled'),
        outcome('reach', 2, True, told='door', prompts='shuffled'),
        outcome('push', 1, False, told='reach', prompts='shuffled'),
        outcome('push', 2, True, told='reach', prompts='shuffled'),
        outcome('door', 1, True, told='push', prompts='shuffled'),
    ]
    every, alike = falls(counted([*straight, *twisted]), ('reach', 'push'))
    assert 'told another task: 66.7 [' in every
    assert 'told its own: 100.0 [' in every
    assert 'told another of these: 33.3 [6, 79] of 3' in alike
    assert alike.endswith('told its own: 100.0 [51, 100] of 4')
    assert falls(counted(straight), ('reach', 'push')) == []


def test_all_cases_are_every_combination_a_task_at_a_time():
    cases = all_cases(['reach', 'push'], [1, 10], ['fp32'], ['canonical'], range(5, 7))
    assert len(cases) == len(set(cases)) == 8
    assert [c.task for c in cases] == ['reach'] * 4 + ['push'] * 4
    assert [(c.num_steps, c.seed) for c in cases[:4]] == [(1, 5), (1, 6), (10, 5), (10, 6)]
    assert len({c.group for c in cases}) == 4


def test_an_outcome_that_is_none_is_refused():
    with pytest.raises(KeyError):
        outcome_from_json({'case': {}})
