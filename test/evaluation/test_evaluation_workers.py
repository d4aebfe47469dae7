"""Several processes: the same outcomes as one, and Ctrl-C in earnest."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from vla_trt_ros.config import load_platform
from vla_trt_ros.errors import BundleError
from vla_trt_ros.evaluation.cases import Setup, all_cases
from vla_trt_ros.evaluation.workers import run_cases

pytestmark = [
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.usefixtures('simulator'),
]

SETUP = Setup(
    env='metaworld',
    bundle='nano',
    platforms={'fp32': load_platform('cpu')},
    tasks=('reach', 'push'),
    image_size=(64, 64),
    max_steps=15,
)
CASES = all_cases(SETUP.tasks, [1], ['fp32'], ['canonical'], range(900_000, 900_002))


def what_happened(outcome):
    r = outcome.result
    return r.success, r.steps, r.chunks, r.clamped, r.error


def test_two_processes_come_to_what_one_comes_to():
    one = {o.case: what_happened(o) for o in run_cases(SETUP, CASES, workers=1)}
    two = {o.case: what_happened(o) for o in run_cases(SETUP, CASES, workers=2)}
    assert set(one) == set(CASES)
    assert one == two
    assert not any(error for *_, error in one.values())


def test_what_no_episode_can_run_with_comes_through_from_a_process():
    setup = replace(SETUP, platforms={'fp32': load_platform('rtx')})
    with pytest.raises(BundleError, match="bundle 'nano' holds no vision engine"):
        list(run_cases(setup, CASES, workers=2))


@pytest.fixture
def running(tmp_path):
    """An evaluation of 40 short episodes that has ended a few: (process, its results, command)."""
    path = tmp_path / 'success.json'
    words = '--tasks reach --episodes 40 --max-steps 10 --camera 64x64 --workers 2 --steps 1'
    command = [sys.executable, '-m', 'vla_trt_ros.cli.main', 'sim', 'eval', *words.split()]
    command += ['--json', str(path)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while ended(path) < 2:
        assert time.monotonic() < deadline, 'no episode ended'
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.01)
    yield child, path, command
    child.kill()
    child.wait()


def ended(path):
    """Episodes on disk; their file begins with a line of its own."""
    episodes = path.with_suffix('.episodes.jsonl')
    return episodes.read_text().count('\n') - 1 if episodes.exists() else 0


def test_ctrl_c_ends_with_130_and_resume_finishes(running):
    child, path, command = running
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert 'Traceback' not in err
    assert '--resume goes on' in out
    assert not path.exists()
    done = ended(path)
    assert 2 <= done < 40
    again = subprocess.run(
        [*command, '--resume'], capture_output=True, text=True, check=True, timeout=100
    )
    assert f'{done} of 40 episodes are done already' in again.stdout
    [record] = json.loads(path.read_text())
    assert record['episodes'] == 40
    assert not ended(path)


def test_a_parent_that_is_killed_leaves_its_episodes_and_no_process(running):
    child, path, _ = running
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert ended(path) >= 2
    deadline = time.monotonic() + 20
    while members(child.pid):
        assert time.monotonic() < deadline, f'still there: {members(child.pid)}'
        time.sleep(0.05)


def members(session):
    """Processes of a session that are not dead."""
    found = []
    for entry in Path('/proc').iterdir():
        with suppress(OSError, ValueError):
            state, _, _, sid = (entry / 'stat').read_text().rpartition(')')[2].split()[:4]
            if int(sid) == session and state != 'Z':
                found.append(entry.name)
    return found
