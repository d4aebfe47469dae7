"""The verb on nano: keys of its records, that they add up, and what it refuses."""

import json
from dataclasses import fields

import pytest

from vla_trt_ros.cli import bench, bench_baseline
from vla_trt_ros.cli.bench_record import Record
from vla_trt_ros.cli.main import main

pytestmark = pytest.mark.alone

SHARED = [
    *('hardware', 'backend', 'precision', 'views', 'prompt_tokens', 'horizon', 'steps'),
    *('e2e_total_ms', 'vision_ms', 'prefix_ms', 'denoise_ms', 'hz', 'p50_ms', 'p99_ms'),
    *('n', 'clock'),
]


@pytest.fixture(scope='module', autouse=True)
def loaded_once():
    """Loads a bundle once for all tests of this file."""
    load, loaded = bench.load_policy_from, {}

    def cached(bundle, platform):
        key = (bundle.name, platform.name)
        if key not in loaded:
            loaded[key] = load(bundle, platform)
            loaded[key].close = lambda: None
        return loaded[key]

    bench.load_policy_from = cached
    yield
    bench.load_policy_from = load


@pytest.fixture(scope='module')
def records(tmp_path_factory):
    path = tmp_path_factory.mktemp('bench') / 'made' / 'bench.json'
    words = ['bench', '--steps', '1,10', '-n', '6', '--warm-up', '2', '--json', str(path)]
    assert main(words) == 0
    return json.loads(path.read_text())


def test_records_begin_with_the_keys_that_all_benchmarks_share(records):
    for record in records:
        assert list(record)[: len(SHARED)] == SHARED
        assert list(record) == [f.name for f in fields(Record)]


def test_records_add_up(records):
    one, ten = records
    assert (one['steps'], ten['steps']) == (1, 10)
    assert (one['views'], one['horizon'], one['n'], one['bundle']) == (2, 10, 6, 'nano')
    assert (one['backend'], one['precision']) == ('onnxruntime', 'fp32')
    assert 1 < one['prompt_tokens'] <= one['prompt_bucket'] == 24
    for record in records:
        stages = record['vision_ms'] + record['prefix_ms'] + record['denoise_ms']
        assert 0 < stages < record['p99_ms'] * 1.5
        assert record['engines_ms'] == pytest.approx(stages, rel=0.2)
        assert record['e2e_total_ms'] == record['p50_ms'] <= record['p99_ms']
        assert record['hz'] == pytest.approx(1e3 / record['p50_ms'], rel=0.01)
        assert record['per_step_ms'] * record['steps'] == pytest.approx(
            record['denoise_ms'], abs=0.01
        )
    assert ten['denoise_ms'] > 3 * one['denoise_ms']


def test_a_processor_has_no_floor_and_no_gpu_memory(records):
    assert {r['floor_ms'] for r in records} == {None}
    assert {(r['uploaded_total_ms'], r['uploaded_p99_ms']) for r in records} == {(None, None)}
    assert {r['gpu_memory_mib'] for r in records} == {0.0}
    assert {r['stage_clock'] for r in records} == {'perf_counter around each stage'}


def test_one_view_to_stdout(capsys):
    words = ['bench', '--views', '1', '--steps', '3', '-n', '3', '--warm-up', '1', '--json', '-']
    assert main(words) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record['views'], record['steps']) == (1, 3)


def test_a_prompt_of_a_wanted_length(capsys):
    words = ['bench', '--prompt-tokens', '40', '--steps', '1', '-n', '1', '--json', '-']
    assert main([*words, '--warm-up', '0']) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record['prompt_tokens'], record['prompt_bucket']) == (40, 48)


def test_tables_of_a_run_with_a_peer_and_a_picture(records, tmp_path, capsys):
    pytest.importorskip('matplotlib', reason="needs the sim extra: pip install '.[sim]'")
    peer = tmp_path / 'peer.json'
    peer.write_text(json.dumps([records[0] | {'implementation': 'a peer', 'e2e_total_ms': 1e6}]))
    picture = tmp_path / 'bench.png'
    words = ['bench', '--steps', '1', '-n', '2', '--warm-up', '1', '--compare', str(peer)]
    assert main([*words, '--plot', str(picture)]) == 0
    said = capsys.readouterr().out
    assert 'vision: onnxruntime fp32, prefix: onnxruntime fp32' in said
    assert 'a peer: infer(): camera frames on the host in' in said
    assert picture.stat().st_size > 10_000


def test_a_pytorch_twin_beside(capsys):
    pytest.importorskip('torch', reason="needs the export extra: pip install '.[export]'")
    words = ['bench', '--steps', '2', '-n', '2', '--warm-up', '1', '--views', '1', '--json', '-']
    assert main([*words, '--baseline', 'pytorch', '--baseline-n', '2']) == 0
    ours, twin = json.loads(capsys.readouterr().out)
    assert ours['implementation'] == 'vla_trt_ros'
    assert twin['implementation'] == 'our network in PyTorch, eager'
    same = ('hardware', 'views', 'prompt_tokens', 'prompt_bucket', 'horizon', 'steps')
    assert [twin[name] for name in same] == [ours[name] for name in same]
    stages = twin['vision_ms'] + twin['prefix_ms'] + twin['denoise_ms']
    assert stages == pytest.approx(twin['e2e_total_ms'], rel=0.2)
    assert (twin['n'], twin['precision']) == (2, 'fp32')


def test_without_torch_a_baseline_is_refused_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr(bench_baseline, 'find_spec', lambda name: None)
    assert main(['bench', '--bundle', 'nowhere', '--baseline', 'pytorch']) == 1
    assert main(['bench', '--baseline', 'pytorch']) == 1
    said = capsys.readouterr().err
    assert '--baseline pytorch needs torch, which is not installed' in said


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--views', '3'], '--views 3: bundle nano has 2 views (base, wrist); 0 is all of them.'),
        (['--views', '-1'], '--views -1: bundle nano has 2 views'),
        (['-n', '0'], '-n 0: one timed run at least.'),
        (['--baseline-n', '0'], '--baseline-n 0: one timed run at least.'),
        (['--steps', ''], '--steps is empty'),
        (['--steps', '3,4'], 'num_steps 4 is not in this bundle, which has 1, 2, 3, 5, 10'),
        (['--prompt-tokens', '49'], '--prompt-tokens 49: the largest engine of bundle nano'),
        (['--prompt-tokens', '2'], 'ask for 24'),
        (['--camera', '640'], "--camera '640': write WIDTHxHEIGHT"),
        (['--compare', 'pyproject.toml'], 'pyproject.toml: is not JSON'),
        (['--device', 'h200'], 'device h200 is of target sm_90, the platform of cpu'),
    ],
)
def test_what_cannot_be_is_refused(words, message, capsys):
    assert main(['bench', '--steps', '1', '-n', '1', *words]) == 1
    assert message in capsys.readouterr().err
