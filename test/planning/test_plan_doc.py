"""docs/plan.md says what the command says."""

import json
import re
from pathlib import Path

import pytest

from vla_trt_ros.cli.main import main

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / 'docs' / 'plan.md').read_text(encoding='utf-8')


def planned(capsys, **words):
    given = [part for key, value in words.items() for part in (f'--{key}', value)]
    assert main(['plan', '--json', '-', *given]) == 0
    found = json.loads(capsys.readouterr().out)
    return found if isinstance(found, list) else [found]


def rows(first):
    """Cells of the tables whose first column matches ``first``."""
    lines = re.findall(rf'^\| ({first}) \| (.+) \|$', TEXT, re.MULTILINE)
    return [(name, *rest.split(' | ')) for name, rest in lines]


FLOORS = [r for r in rows('orin|thor|rtx|h200') if '/' in r[2]]


def test_all_tables_were_found():
    assert len(FLOORS) == 15
    assert len(rows('orin|thor|rtx|h200')) == 19
    assert len(rows('bf16|fp8|int8|int4|nvfp4')) == 5


@pytest.mark.parametrize('row', FLOORS, ids=lambda r: f'{r[0]} {r[1]}')
def test_floors(row, capsys):
    platform, precision, *cells = row
    name, _, own = precision.partition(', ')
    for (views, tokens), cell in zip((('2', '48'), ('3', '200')), cells, strict=True):
        shape = {'views': views, 'prompt-tokens': tokens, 'steps': '1,3,10'}
        plans = planned(capsys, platform=platform, precision='' if own else name, **shape)
        assert {p['precision'] for p in plans} == {name}
        assert cell == ' / '.join(f'{p["floor_ms"]:.1f}' for p in plans)


def test_bounds(capsys):
    for platform, *cells in (r for r in rows('orin|thor|rtx|h200') if r not in FLOORS):
        (plan,) = planned(capsys, platform=platform, views='2')
        assert cells == [f'{s["floor_ms"]:.2f} ms, {s["bound"]}' for s in plan['stages'].values()]


def test_memory(capsys):
    for precision, *cells in rows('bf16|fp8|int8|int4|nvfp4'):
        shape = {'prompt-tokens': '200', 'precision': precision}
        (plan,) = planned(capsys, platform='rtx', **shape)
        memory = plan['memory_bytes']
        held = [s['engine_bytes'] for s in plan['stages'].values()]
        held += [memory['kv_cache'], memory['activations'], memory['total']]
        assert cells == [f'{b / 1e9:.2f}' for b in held]


def test_planned_beside_built(capsys):
    found = rows('(?:vision|prefix|denoise) (?:bf16|fp8)')
    assert len(found) == 5
    for name, planned_mb, built_mb in found:
        stage, precision = name.split()
        shape = {'views': '2', 'prompt-tokens': '200', 'precision': precision}
        (plan,) = planned(capsys, platform='rtx', **shape)
        assert planned_mb == f'{plan["stages"][stage]["engine_bytes"] / 1e6:.1f}'
        assert float(planned_mb) == pytest.approx(float(built_mb), rel=0.01)


def test_the_example_is_what_the_command_prints(capsys):
    command, printed = re.search(r'\$ vla-trt (plan .+?)\n(.+?)\n```', TEXT, re.DOTALL).groups()
    assert main(command.split()) == 0
    assert capsys.readouterr().out.strip() == printed


def test_the_example_of_shares_predicts_what_the_page_says(tmp_path, capsys):
    path = tmp_path / 'shares.json'
    path.write_text(re.search(r'```json\n(.+?)```', TEXT, re.DOTALL).group(1))
    shape = {'platform': 'thor', 'views': '2', 'prompt-tokens': '13', 'horizon': '10'}
    plans = planned(capsys, efficiency=str(path), steps='3,10', **shape)
    three, ten = (f'{p["predicted_ms"]:.1f}' for p in plans)
    assert f'{three} ms for 3 steps and {ten}\nfor 10' in TEXT


def test_the_example_of_a_device_is_one(tmp_path, capsys):
    path = tmp_path / 'xavier.yaml'
    path.write_text(re.search(r'```yaml\n(.+?)```', TEXT, re.DOTALL).group(1))
    (plan,) = planned(capsys, platform='orin', device=str(path))
    assert plan['device'] == 'xavier'
