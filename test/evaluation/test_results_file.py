"""Nothing that was run is run again, and nothing is lost."""

import json
from dataclasses import replace

import pytest
from evaluation_fakes import CONDITIONS, outcome, setup

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.evaluation.records import count
from vla_trt_ros.evaluation.results_file import ResultsFile, read_records

SEEDS = range(900_000, 900_002)
EVERY = [outcome(task=t, seed=s) for t in ('reach', 'push') for s in SEEDS]
CASES = [o.case for o in EVERY]


def records_of(outcomes, conditions=CONDITIONS):
    return count(outcomes, setup(), conditions)


def begun(path, outcomes):
    file = ResultsFile(path, CONDITIONS, resume=False)
    for o in outcomes:
        file.add(o)
    file.close()


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    path = tmp_path / 'new' / 'success.json'
    begun(path, EVERY[:3])
    assert not path.exists()
    file = ResultsFile(path, CONDITIONS, resume=True)
    assert file.missing(CASES, SEEDS) == CASES[3:]
    assert list(file.outcomes) == EVERY[:3]
    file.add(EVERY[3])
    again = ResultsFile(path, CONDITIONS, resume=True)
    assert list(again.outcomes) == EVERY
    file.finish(records_of(EVERY))
    assert read_records(path) == records_of(EVERY)
    assert not file.episodes_path.exists()


def test_a_line_cut_short_by_a_crash_is_run_again(tmp_path):
    path = tmp_path / 'success.json'
    begun(path, EVERY[:3])
    episodes = path.with_suffix('.episodes.jsonl')
    episodes.write_text(episodes.read_text()[:-25])
    file = ResultsFile(path, CONDITIONS, resume=True)
    assert list(file.outcomes) == EVERY[:2]
    file.add(EVERY[2])
    file.close()
    assert len(ResultsFile(path, CONDITIONS, resume=True).outcomes) == 3


def test_whole_records_are_kept_and_not_run_again(tmp_path):
    path = tmp_path / 'success.json'
    ResultsFile(path, CONDITIONS, resume=False).finish(records_of(EVERY[:2]))
    file = ResultsFile(path, CONDITIONS, resume=True)
    assert file.missing(CASES, SEEDS) == CASES[2:]
    assert file.missing(CASES, range(900_000, 900_003)) == CASES
    other = ResultsFile(path, replace(CONDITIONS, delay_rows=2), resume=True)
    assert other.missing(CASES, SEEDS) == CASES
    assert len(other.finish(records_of(EVERY, other._conditions))) == 3
    file = ResultsFile(path, CONDITIONS, resume=True)
    assert [r.task for r in file.finish(records_of(EVERY))] == ['reach', 'push', 'reach', 'push']


def test_without_resume_a_file_of_records_is_replaced_but_no_episode_is_lost(tmp_path):
    path = tmp_path / 'success.json'
    ResultsFile(path, CONDITIONS, resume=False).finish(records_of(EVERY))
    ResultsFile(path, CONDITIONS, resume=False).finish(records_of(EVERY[:2]))
    assert [r.task for r in read_records(path)] == ['reach']
    begun(path, EVERY[:1])
    with pytest.raises(ConfigError, match='go on with --resume, or delete it'):
        ResultsFile(path, CONDITIONS, resume=False)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'bundle_sha256': 'e' * 64}, 'begun with bundle_sha256 fff'),
        ({'execute_rows': 3}, 'begun with execute_rows 5, this run has 3'),
        ({'image_size': (64, 64)}, 'image_size'),
    ],
)
def test_another_test_does_not_go_on_with_it(tmp_path, change, message):
    path = tmp_path / 'success.json'
    begun(path, EVERY[:1])
    with pytest.raises(ConfigError, match=message):
        ResultsFile(path, replace(CONDITIONS, **change), resume=True)


@pytest.mark.parametrize('text', ['{', '[1]', '[{"task": "reach"}]', 'null'])
def test_a_file_that_is_no_results_file_is_named(tmp_path, text):
    path = tmp_path / 'other.json'
    path.write_text(text)
    with pytest.raises(ConfigError, match='other.json is no results file'):
        ResultsFile(path, CONDITIONS, resume=True)


def test_episodes_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / 'success.json'
    begun(path, EVERY[:1])
    episodes = path.with_suffix('.episodes.jsonl')
    lines = episodes.read_text().splitlines()
    episodes.write_text('\n'.join([lines[0], json.dumps({'case': 1}), '']))
    with pytest.raises(ConfigError, match='success.episodes.jsonl cannot be read'):
        ResultsFile(path, CONDITIONS, resume=True)
