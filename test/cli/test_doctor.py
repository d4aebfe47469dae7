"""Findings about a machine, as JSON and as lines."""

import json

import pytest

from vla_trt_ros.cli import checks
from vla_trt_ros.cli.main import main
from vla_trt_ros.config import load_platform


def doctor(capsys, *words):
    """Status and {name: finding} of ``vla-trt doctor --json``."""
    status = main(['doctor', '--json', *words])
    findings = json.loads(capsys.readouterr().out)
    assert all(list(f) == ['name', 'status', 'text', 'remedy'] for f in findings)
    assert {f['status'] for f in findings} <= {'ok', 'warn', 'fail', 'skip'}
    assert all(f['text'] for f in findings)
    assert all(f['remedy'] for f in findings if f['status'] == 'fail')
    return status, {f['name']: f for f in findings}


def test_this_machine(capsys):
    status, found = doctor(capsys)
    failed = {name for name, f in found.items() if f['status'] == 'fail'}
    assert status == bool(failed)
    # A machine without ROS, OSMesa or room in /dev/shm may run this test.
    assert failed <= {'rclpy', 'messages', 'rendering', 'shared memory'}
    assert found['bundle'] == {
        'name': 'bundle',
        'status': 'ok',
        'text': 'nano: every hash agrees',
        'remedy': '',
    }
    assert found['denoise on onnxruntime fp32']['text'] == '10 engines'


def test_bundle_that_does_not_exist(capsys):
    status, found = doctor(capsys, '--bundle', 'nope')
    assert status == 1
    assert 'bundles/nope does not exist; known: nano' in found['bundle']['text']
    assert 'robot' not in found


def test_bundle_of_another_robot(capsys):
    status, found = doctor(capsys, '--robot', 'so101')
    assert status == 1
    assert found['robot']['status'] == 'fail'
    assert "does not fit robot 'so101'" in found['robot']['text']


def test_platform_of_another_machine(capsys, monkeypatch):
    monkeypatch.setattr(checks, 'nvidia_smi', lambda query='': '')
    status, found = doctor(capsys, '--platform', 'thor')
    assert status == 1
    assert found['platform']['text'] == 'platform thor needs a GPU of sm_110, none is found'


def test_gpu_of_another_generation(monkeypatch):
    monkeypatch.setattr(checks, 'nvidia_smi', lambda query='': '8.7')
    *_, found = checks.backends(load_platform('thor'))
    assert (found.name, found.status) == ('platform', 'fail')
    assert found.text == 'platform thor is for sm_110, this GPU is sm_87'


def test_lines_have_their_remedy_below(capsys):
    assert main(['doctor', '--bundle', 'nope']) == 1
    lines = capsys.readouterr().out.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith('[FAIL] bundle: ')]
    assert lines[at + 1].startswith('         -> ')
    assert lines[-1].endswith(' failed')


@pytest.mark.parametrize(
    ('variables', 'status'),
    [({}, 'warn'), ({'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA'}, 'ok')],
)
def test_transport_that_loses_images_is_told(variables, status, monkeypatch):
    for name in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTDDS_BUILTIN_TRANSPORTS'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv('RMW_IMPLEMENTATION', raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = {f.name: f for f in checks.transport()}['image transport']
    assert found.status == status
    if status == 'warn':
        assert found.remedy.startswith('export FASTDDS_DEFAULT_PROFILES_FILE=')
        assert found.remedy.endswith('fastdds_large_shm.xml')
