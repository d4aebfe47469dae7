"""The verb plan: one table, plans side by side, JSON, and what it refuses."""

import json

import pytest

from vla_trt_ros.cli.main import main
from vla_trt_ros.policies.pi05.spec import NANO

WORDS = ['plan', '--platform', 'thor', '--views', '2']
SHARES = {'vision': 0.5, 'prefix': 0.25, 'denoise': 0.5, 'source': 'a first engine, June'}


def said(capsys, *words):
    assert main([*WORDS, *words]) == 0
    return capsys.readouterr().out


def recorded(capsys, *words):
    return json.loads(said(capsys, *words, '--json', '-'))


def test_the_table_of_one_plan(capsys):
    text = said(capsys, '--precision', 'fp8', '--prompt-tokens', '48', '--steps', '10')
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert rows['vision'][:6] == ['vision', 'fp8', '415.5', '1', '440.4', '414.1']
    assert rows['prefix'][4:9] == ['2141.2', '1883.1', '4.14', '6.90', '6.90']
    assert rows['denoise'][3] == '10'
    assert rows['total'][1] == '20.20'
    assert 'not measurements' in text
    assert 'data sheet' in text
    assert 'predicted' not in text


def test_shares_of_the_floor_add_up(capsys):
    rows = [line for line in said(capsys).splitlines() if ' % ' in line]
    assert len(rows) == 3
    total = sum(float(row.split(' %')[0].split()[-1]) for row in rows)
    assert total == pytest.approx(100, abs=0.2)


def test_one_plan_is_one_record(capsys):
    record = recorded(capsys, '--precision', 'fp8', '--horizon', '10')
    assert record['floor_ms'] == pytest.approx(20.2, abs=0.05)
    stages = record['stages']
    assert record['floor_ms'] == pytest.approx(
        sum(s['floor_ms'] for s in stages.values()), abs=1e-3
    )
    assert record['predicted_ms'] is None
    assert (record['horizon'], record['prefix_tokens'], record['steps']) == (10, 560, 10)
    assert stages['denoise']['flop'] == pytest.approx(71e9, rel=0.01)
    memory = record['memory_bytes']
    assert memory['total'] == memory['weights'] + memory['kv_cache'] + memory['activations']
    assert memory['total'] < memory['device'] == 128e9


def test_precisions_of_the_platform_file_are_the_default(capsys):
    record = recorded(capsys)
    assert record['precision'] == 'fp16/fp8/bf16'
    assert {s: v['precision'] for s, v in record['stages'].items()} == {
        'vision': 'fp16',
        'prefix': 'fp8',
        'denoise': 'bf16',
    }


def test_several_plans_are_a_list_in_the_order_asked_for(capsys):
    records = recorded(capsys, '--precision', 'nvfp4,fp16/fp8/bf16', '--steps', '3,1')
    assert [(r['precision'], r['steps']) for r in records] == [
        ('nvfp4', 3),
        ('nvfp4', 1),
        ('fp16/fp8/bf16', 3),
        ('fp16/fp8/bf16', 1),
    ]
    assert records[1]['floor_ms'] == pytest.approx(5.4, abs=0.05)


def test_without_a_platform_every_gpu_stands_side_by_side(capsys):
    assert main(['plan', '--steps', '1,10']) == 0
    text = capsys.readouterr().out
    for name in ('h200', 'orin', 'rtx', 'thor'):
        assert sum(line.startswith(f'{name} ') for line in text.splitlines()) == 2
    assert 'Jetson AGX Orin' in text
    assert 'not measurements' in text


def test_shares_predict(tmp_path, capsys):
    path = tmp_path / 'shares.json'
    path.write_text(json.dumps(SHARES))
    record = recorded(capsys, '--efficiency', str(path))
    floors = {s: v['floor_ms'] for s, v in record['stages'].items()}
    expected = 2 * floors['vision'] + 4 * floors['prefix'] + 2 * floors['denoise']
    assert record['predicted_ms'] == pytest.approx(expected, abs=1e-3)
    text = said(capsys, '--efficiency', str(path))
    assert f'{record["predicted_ms"]:.2f}' in text
    assert 'a first engine, June' in text


def test_the_small_bundle_and_a_prompt_shorter_than_its_bucket(capsys):
    assert main(['plan', '--platform', 'orin', '--bundle', 'nano', '--prompt-tokens', '11']) == 0
    text = capsys.readouterr().out
    padded = NANO.prompt_buckets[0]
    prefix = f'padded to {padded} (prefix of {NANO.image_tokens + padded})'
    assert f'nano: 2 views, 11 prompt tokens, {prefix}, horizon 10' in text


def test_files_are_written(tmp_path, capsys):
    pytest.importorskip('matplotlib', reason='of the simulator extra: pip install .[sim]')
    data, plot = tmp_path / 'new' / 'plans.json', tmp_path / 'floors.png'
    text = said(capsys, '--steps', '1,2', '--json', str(data), '--plot', str(plot))
    assert [r['steps'] for r in json.loads(data.read_text())] == [1, 2]
    assert plot.stat().st_size > 10_000
    assert f'wrote {data}' in text
    assert f'wrote {plot}' in text


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--platform', 'xavier'], 'config/platforms/xavier.yaml does not exist'),
        (['--platform', 'cpu'], 'no peaks are known for target cpu'),
        (['--device', 'orin'], 'device orin is of target sm_87, the platform of sm_110'),
        (['--platform', 'orin', '--precision', 'fp8'], 'orin: vision: fp8 does not run on sm_87'),
        (['--precision', 'bf16/bf16/fp9'], 'denoise: fp9 does not run on sm_110; choose of fp32'),
        (['--precision', 'fp16/fp8'], "--precision 'fp16/fp8': write fp8, fp16/fp8/bf16"),
        (['--precision', 'fp8,'], "--precision 'fp8,': write fp8"),
        (['--precision', 'int8'], 'device thor: its int8 peak is not known'),
        (['--prompt-tokens', '201'], '201 prompt tokens: pi05 takes 1 to 200.'),
        (['--prompt-tokens', '0'], '0 prompt tokens'),
        (['--views', '0'], '--views 0: pi05 takes 1 to 3 (base, left_wrist, right_wrist).'),
        (['--views', '4'], '--views 4: pi05 takes 1 to 3'),
        (['--steps', '0'], '0 steps: one at least.'),
        (['--steps', '1;3'], "--steps '1;3': write numbers"),
        (['--steps', ''], '--steps is empty: one step count at least'),
        (['--horizon', '0'], 'horizon 0 must be at least 1.'),
        (['--bundle', 'nope'], 'bundles/nope does not exist; known: nano'),
        (['--efficiency', 'nope.json'], 'nope.json: cannot be read'),
    ],
)
def test_what_is_wrong_is_said_in_a_line(words, message, capsys):
    assert main([*WORDS, *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith('vla-trt plan: ')
    assert message in error


def test_shares_of_one_device_are_not_spread_over_others(tmp_path, capsys):
    path = tmp_path / 'shares.json'
    path.write_text(json.dumps(SHARES))
    assert main(['plan', '--platform', 'thor,orin', '--efficiency', str(path)]) == 1
    assert 'shares are measured on one device' in capsys.readouterr().err


DESK = """
name: desk
description: two cores
target: cpu
tflops: {fp32: 10.0}
bandwidth: 1000.0
memory: 24.0
source: made up, and faster than any processor
"""


def test_a_benchmark_predicts_what_it_measured(tmp_path, capsys):
    """Bench and plan of the small bundle, on the processor that this runs on."""
    bench, device = tmp_path / 'bench.json', tmp_path / 'desk.yaml'
    device.write_text(DESK)
    words = ['bench', '--bundle', 'nano', '--steps', '10', '-n', '5', '--json', str(bench)]
    assert main(words) == 0
    (record,) = json.loads(bench.read_text())
    capsys.readouterr()
    words = ['plan', '--platform', 'cpu', '--device', str(device), '--bundle', 'nano']
    words += ['--prompt-tokens', str(record['prompt_tokens']), '--efficiency', str(bench)]
    assert main([*words, '--json', '-']) == 0
    plan = json.loads(capsys.readouterr().out)
    engines = record['vision_ms'] + record['prefix_ms'] + record['denoise_ms']
    assert plan['predicted_ms'] == pytest.approx(engines, rel=1e-3)
    assert plan['floor_ms'] < 0.1 * engines
    assert plan['efficiency']['source'].startswith(record['hardware'])

    shares = tmp_path / 'shares.json'
    shares.write_text(json.dumps(plan['efficiency']))
    words[-1] = str(shares)
    assert main([*words, '--steps', '1,10', '--json', '-']) == 0
    one, ten = json.loads(capsys.readouterr().out)
    assert ten['predicted_ms'] == pytest.approx(engines, rel=1e-3)
    assert one['predicted_ms'] < ten['predicted_ms']


def test_a_benchmark_is_of_one_choice_of_precisions(tmp_path, capsys):
    path = tmp_path / 'bench.json'
    path.write_text('[]')
    assert main([*WORDS, '--precision', 'fp8,bf16', '--efficiency', str(path)]) == 1
    assert 'a benchmark is of one choice of precisions' in capsys.readouterr().err


def test_a_bundle_and_a_size_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        main(['plan', '--bundle', 'nano', '--size', 'pi05'])
    assert 'not allowed with' in capsys.readouterr().err
