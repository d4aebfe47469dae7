"""Files of benchmark records: ours, older ones, and what is none."""

import json
from pathlib import Path

import pytest
from bench_records import RECORD

from vla_trt_ros.cli.bench_record import read_others, to_json
from vla_trt_ros.errors import ConfigError

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


def write(tmp_path, data):
    path = tmp_path / 'other.json'
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_what_is_written_is_read_again(tmp_path):
    (found,) = read_others(write(tmp_path, to_json([RECORD])))
    assert (found.hardware, found.steps, found.e2e_total_ms) == ('a GPU', 1, 20.0)
    assert found.implementation == 'vla_trt_ros'


@pytest.mark.parametrize('name', ['bench-nano.json', 'h200-pi05.json', 'peers-h200.json'])
def test_records_of_this_repository_can_be_compared_with(name):
    found = read_others(BENCHMARKS / name)
    assert all(r.vision_ms and r.clock for r in found)


def test_stages_may_be_missing(tmp_path):
    record = json.loads(to_json([RECORD]))[0]
    for name in ('vision_ms', 'prefix_ms', 'denoise_ms', 'implementation'):
        del record[name]
    (found,) = read_others(write(tmp_path, [record]))
    assert found.vision_ms is None


GOOD = json.loads(to_json([RECORD]))[0]


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        ({'vision': 0.6}, 'holds no list of records'),
        ([], 'holds no list of records'),
        ([GOOD, 3], 'record 1: expected a mapping, found 3'),
        ([{'hardware': 'a GPU'}], "record 0: 'backend' is missing"),
        ([GOOD | {'e2e_total_ms': 'fast'}], 'e2e_total_ms: expected float'),
        ([GOOD | {'e2e_total_ms': 0}], 'record 0: e2e_total_ms 0.0 must be above 0'),
        ('[{', 'is not JSON'),
    ],
)
def test_a_file_that_is_no_list_of_records_is_refused(tmp_path, data, message):
    with pytest.raises(ConfigError, match=message):
        read_others(write(tmp_path, data))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r'nowhere\.json: cannot be read'):
        read_others(tmp_path / 'nowhere.json')
