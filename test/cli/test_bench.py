"""Benchmark records: their keys, that they add up, and that wrong step counts are refused."""

import json
from dataclasses import replace

import pytest

from vla_trt_ros.cli.bench import Record, table
from vla_trt_ros.cli.main import main

SHARED = [
    *('hardware', 'backend', 'precision', 'views', 'prompt_tokens', 'horizon', 'steps'),
    *('e2e_total_ms', 'vision_ms', 'prefix_ms', 'denoise_ms', 'hz', 'p50_ms', 'p99_ms'),
    *('n', 'clock'),
]
OURS = ['bundle', 'camera', 'preprocess_ms']
RECORD = Record(
    hardware='a processor x 2',
    backend='onnxruntime',
    precision='fp32',
    views=2,
    prompt_tokens=9,
    horizon=10,
    steps=1,
    e2e_total_ms=20.0,
    vision_ms=4.0,
    prefix_ms=8.0,
    denoise_ms=2.5,
    hz=50.0,
    p50_ms=20.0,
    p99_ms=31.25,
    n=7,
    clock='infer()',
    bundle='nano',
    camera='640x480',
    preprocess_ms=1.5,
)


def test_table_gives_shares_and_the_cost_of_a_step():
    slow = replace(RECORD, steps=3, denoise_ms=6.5, e2e_total_ms=24.0)
    lines = table([RECORD, slow]).splitlines()
    (row,) = [line for line in lines if line.startswith('    1 ')]
    assert row.split()[:5] == ['1', '20.00', '31.25', '50.0', '1.50']
    assert '8.00 (40.0 %)' in row
    assert lines[-1] == 'denoise = 2.00 ms x steps + 0.50 ms (largest error 0.00 ms)'


@pytest.fixture(scope='module')
def records(tmp_path_factory):
    path = tmp_path_factory.mktemp('bench') / 'bench.json'
    assert (
        main(['bench', '--steps', '1,10', '-n', '6', '--warm-up', '2', '--json', str(path)]) == 0
    )
    return json.loads(path.read_text())


def test_records_have_the_shared_keys_and_ours(records):
    assert [list(record) for record in records] == [[*SHARED, *OURS]] * 2


def test_records_add_up(records):
    one, ten = records
    assert (one['steps'], ten['steps']) == (1, 10)
    assert (one['views'], one['horizon'], one['n'], one['bundle']) == (2, 10, 6, 'nano')
    assert (one['backend'], one['precision']) == ('onnxruntime', 'fp32')
    assert one['prompt_tokens'] > 1
    for record in records:
        stages = record['vision_ms'] + record['prefix_ms'] + record['denoise_ms']
        assert 0 < stages < record['p99_ms'] * 1.5
        assert record['e2e_total_ms'] == record['p50_ms'] <= record['p99_ms']
        assert record['hz'] == pytest.approx(1e3 / record['p50_ms'], rel=0.01)
    assert ten['denoise_ms'] > 3 * one['denoise_ms']


def test_one_view_to_stdout(capsys):
    words = ['bench', '--views', '1', '--steps', '3', '-n', '3', '--warm-up', '1', '--json', '-']
    assert main(words) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record['views'], record['steps']) == (1, 3)


def test_step_count_that_the_bundle_lacks_is_refused_by_name(capsys):
    assert main(['bench', '--steps', '3,4', '-n', '1']) == 1
    said = capsys.readouterr().err
    assert 'num_steps 4 is not in this bundle, which has 1, 2, 3, 5, 10' in said


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--views', '3'], '--views 3: bundle nano has 2 views (base, wrist); 0 is all of them.'),
        (['--views', '-1'], '--views -1: bundle nano has 2 views'),
        (['-n', '0'], '-n 0: one timed run at least.'),
    ],
)
def test_counts_that_cannot_be_are_refused(words, message, capsys):
    assert main(['bench', '--steps', '1', '-n', '1', *words]) == 1
    assert message in capsys.readouterr().err
