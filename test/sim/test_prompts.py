import pytest

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.sim import prompts


def test_every_benchmark_task_has_several_phrasings():
    for task in prompts.BENCHMARK_TASKS:
        assert len(prompts.PROMPTS[task]) >= 6


def test_no_phrase_belongs_to_two_tasks():
    phrases = [p for task in prompts.PROMPTS.values() for p in task]
    assert len(phrases) == len(set(phrases))


def test_phrases_are_as_a_tokenizer_gets_them():
    for task, phrases in prompts.PROMPTS.items():
        assert len(phrases) >= 2, task
        for phrase in phrases:
            assert phrase == phrase.strip().lower()
            assert phrase.isascii()
            assert not set(phrase) & set('_\n')


@pytest.mark.parametrize('name', ['pick-place', 'pick-place-v3', 'Pick_Place', ' pick place '])
def test_a_task_is_found_however_it_is_written(name):
    assert prompts.prompt_for(name) == 'pick up the puck and place it at the goal'


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"task 'drawr-open'.*did you mean 'drawer-open'"):
        prompts.prompt_for('drawr-open')


def test_a_task_like_none_lists_what_is_known():
    with pytest.raises(ConfigError, match='known: assembly, basketball'):
        prompts.prompts_for('xyz')
