"""``vla-trt sim record`` as a user runs it."""

import importlib.util
import os
import signal
import subprocess
import sys
import time

import pytest

from vla_trt_ros.cli.main import main

pytest.importorskip('pyarrow', reason="pip install '.[sim]'")

NEEDED = ('metaworld', 'mujoco')
simulator = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED), reason="pip install '.[sim]'"
)
SMALL = ('--image-size', '32', '--tasks', 'reach,drawer-open', '--stride', '5')


def start(out, *words):
    return subprocess.Popen(
        [sys.executable, '-m', 'vla_trt_ros.cli.main', 'sim', 'record', '--out', str(out), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def stored(root):
    from vla_trt_ros.sim.dataset.reader import read_dataset

    return [(e.scene, e.seed) for e in read_dataset(root)]


@simulator
@pytest.mark.alone
def test_two_processes_record_and_a_second_call_adds(tmp_path):
    first = start(tmp_path / 'd', *SMALL, '--episodes', '1', '--workers', '2')
    text, _ = first.communicate(timeout=60)
    assert first.returncode == 0, text
    assert '2 scenes in' in text
    again = start(tmp_path / 'd', *SMALL, '--episodes', '2', '--workers', '2')
    text, _ = again.communicate(timeout=60)
    assert again.returncode == 0, text
    assert '2 of 4 scenes are done already' in text
    assert '4 episodes' in text
    assert stored(tmp_path / 'd') == [(s, k) for k in (0, 1) for s in ('reach', 'drawer-open')]


@simulator
@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize(('sent', 'status'), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_recording_goes_on(tmp_path, sent, status):
    """Ctrl-C, or the kernel out of memory: nothing is lost, nothing is there twice."""
    out = tmp_path / 'd'
    words = ('--image-size', '32', '--tasks', 'reach', '--stride', '4', '--episodes', '10')
    words = (*words, '--workers', '2')
    running = start(out, *words)
    while not list((out / '.unfinished').glob('*.parquet')) and running.poll() is None:
        time.sleep(0.02)
    if sent == signal.SIGINT:
        os.killpg(running.pid, sent)  # as a terminal does
    else:
        running.kill()  # the parent alone: its processes have to end by themselves
    text, _ = running.communicate(timeout=60)
    assert running.returncode == status, text
    before = 0
    if sent == signal.SIGINT:
        assert 'the same command goes on' in text
        before = len(stored(out))
        assert 0 < before < 10
        assert not (out / '.unfinished').exists()
    again = start(out, *words)
    text, _ = again.communicate(timeout=100)
    assert again.returncode == 0, text
    assert 'of 10 scenes are done already' in text or not before
    assert sorted(stored(out)) == [('reach', k) for k in range(10)]


@pytest.mark.parametrize(
    ('words', 'complaint'),
    [
        (['--seed', '900000'], 'seed 900049 is held out for evaluation'),
        (['--seed', '899990'], 'Or say --allow-held-out-seeds'),
        (['--seed', '-1', '--allow-held-out-seeds'], 'seed -1 is negative'),
        (['--episodes', '0'], '--episodes 0: at least 1'),
        (['--noise', '0,loud'], "--noise '0,loud': write levels from 0 to 1"),
        (['--noise', '1.5'], 'write levels from 0 to 1'),
        (['--tasks', 'raech'], "did you mean 'reach'"),
        (['--tasks', ','], 'names no task'),
        (['--stride', '0'], '--stride 0 must be 1 at least'),
        (['--stride', '3'], '--stride 3 gives 6.67 frames a second'),
        (['--image-size', '8'], 'image size 8 x 8 is outside 16 x 16'),
    ],
)
def test_what_cannot_be_recorded(tmp_path, capsys, words, complaint):
    assert main(['sim', 'record', '--out', str(tmp_path / 'd'), *words]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / 'd').exists()
