"""What the policy is told."""

import pytest

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.evaluation.prompting import derangement, told
from vla_trt_ros.sim.prompts import BENCHMARK_TASKS, PROMPTS, prompt_for, prompts_for


@pytest.mark.parametrize('tasks', [BENCHMARK_TASKS, ('reach', 'push')], ids=len)
def test_shuffling_gives_every_task_away_and_none_to_itself(tasks):
    seen = set()
    for seed in range(900_000, 900_200):
        other = derangement(tasks, seed)
        assert set(other) == set(other.values()) == set(tasks)
        assert all(task != words for task, words in other.items())
        assert other == derangement(tasks, seed)
        seen.add(other['reach'])
    assert seen == set(tasks) - {'reach'}


def test_one_task_cannot_be_shuffled():
    with pytest.raises(ConfigError, match="name two or more, not 'reach'"):
        derangement(['reach'], 0)


def test_the_words_of_each_way():
    given = {'tasks': BENCHMARK_TASKS, 'prompts_of': prompts_for}
    assert told('canonical', 'push', 5, **given) == ('push', prompt_for('push'))
    count = len(PROMPTS['push'])
    varied = [told('varied', 'push', seed, **given) for seed in range(count)]
    assert [words for _, words in varied] == list(PROMPTS['push'])
    assert {task for task, _ in varied} == {'push'}
    task, words = told('shuffled', 'push', 5, **given)
    assert task == derangement(BENCHMARK_TASKS, 5)['push']
    assert words == prompt_for(task)
