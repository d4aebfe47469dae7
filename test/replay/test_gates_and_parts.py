"""Gates, and results on disk."""

import json
import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from vla_trt_ros.errors import ConfigError, VlaError
from vla_trt_ros.replay.gates import check_gates, decide, parse_gate
from vla_trt_ros.replay.parts import FRAMES, PART, PartWriter, read_part, write_text

CONDITIONS = {'bag': 'b', 'seed': 3, 'stages': {'vision': 'onnxruntime fp32'}}


@pytest.mark.parametrize(
    ('text', 'value', 'passed'),
    [
        ('mae_h1<=0.02', 0.02, True),
        ('mae_h1<=0.02', 0.0201, False),
        ('mae_h1 < 0.02', 0.02, False),
        ('gripper_agreement>=0.9', 0.9, True),
        ('mae_h1.hand_x>1e-3', 0.001, False),
    ],
)
def test_gate_is_what_it_says(text, value, passed):
    gate = parse_gate(text)
    (verdict,) = decide([gate], {'nano': {gate.metric: value}})
    assert verdict.passed is passed
    assert str(verdict).startswith('pass' if passed else 'FAIL')
    assert 'nano' in str(verdict)


def test_gate_holds_for_every_setting_and_never_for_what_is_unknown():
    found = decide(
        [parse_gate('mae_h1<=1')], {'a': {'mae_h1': 0.5}, 'b': {'mae_h1': 2.0}, 'c': {}}
    )
    assert [v.passed for v in found] == [True, False, False]


@pytest.mark.parametrize(
    'text', ['mae_h1', 'mae_h1<=', 'mae_h1=0.2', '<=0.2', 'mae_h1<=low', 'a<=nan']
)
def test_what_is_no_gate(text):
    with pytest.raises(ConfigError, match='write metric<=value'):
        parse_gate(text)


def test_unknown_metric_lists_the_names():
    known = ('mae_h1', 'mae_all', 'seam')
    with pytest.raises(ConfigError, match=r'did you mean mae_all\? Known: mae_all, mae_h1, seam'):
        check_gates([parse_gate('mae_al<=1')], known)


def write(folder, rows=3, finish=True):
    with PartWriter(folder, CONDITIONS, ('t', 'start_ns', 'mae_h1')) as writer:
        for k in range(rows):
            values = {'t': 0.05 * k, 'start_ns': 1_700_000_000_000_000_123 + k}
            writer.add(values if k == 1 else values | {'mae_h1': 1 / 3})
        if finish:
            writer.finish({'counts': {'pairs': 3}})


def test_a_part_comes_back_as_it_was(tmp_path):
    write(tmp_path / 'p')
    part = read_part(tmp_path / 'p', CONDITIONS)
    np.testing.assert_allclose(part.table['t'], [0.0, 0.05, 0.1])
    np.testing.assert_allclose(part.table['mae_h1'], [0.333333, math.nan, 0.333333])
    assert part.facts['counts'] == {'pairs': 3}
    # A person reads integers, and nothing where there is nothing.
    assert (tmp_path / 'p' / FRAMES).read_text().splitlines()[2] == '0.050000,1700000000000000124,'


def test_a_part_that_was_stopped_is_done_anew(tmp_path):
    write(tmp_path / 'p', finish=False)
    assert len((tmp_path / 'p' / FRAMES).read_text().splitlines()) == 4  # on disk as they came
    assert read_part(tmp_path / 'p', CONDITIONS) is None
    write(tmp_path / 'p', rows=2)
    assert len(read_part(tmp_path / 'p', CONDITIONS).table.values) == 2


def test_a_part_of_other_conditions_is_refused(tmp_path):
    write(tmp_path / 'p')
    with pytest.raises(ConfigError, match='made with seed 3, this run has 4'):
        read_part(tmp_path / 'p', CONDITIONS | {'seed': 4})


def test_damaged_parts_are_named(tmp_path):
    write(tmp_path / 'p')
    whole = (tmp_path / 'p' / FRAMES).read_text()
    (tmp_path / 'p' / FRAMES).write_text(whole[: whole.rindex('0.1')])
    with pytest.raises(ConfigError, match='holds 2 of 3 frames'):
        read_part(tmp_path / 'p', CONDITIONS)
    (tmp_path / 'p' / PART).write_text('{')
    with pytest.raises(ConfigError, match='cannot be read'):
        read_part(tmp_path / 'p', CONDITIONS)


def limited(code, size, folder):
    """Run ``code`` where no file may grow beyond ``size`` bytes: the disk is full."""
    setup = f"""
        import resource, signal, sys
        from pathlib import Path
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
        from vla_trt_ros.replay.parts import PartWriter, write_text
        folder = Path({str(folder)!r})
    """
    script = textwrap.dedent(setup) + textwrap.dedent(code)
    return subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)


def test_full_disk_says_so_and_keeps_the_frames_so_far(tmp_path):
    code = """
        with PartWriter(folder, {}, ('t', 'mae_h1')) as writer:
            for k in range(10000):
                writer.add({'t': k, 'mae_h1': 0.5})
    """
    done = limited(code, 5000, tmp_path / 'p')
    assert 'frames.csv cannot be written: File too large. The parts that are whole' in done.stderr
    lines = (tmp_path / 'p' / FRAMES).read_text().splitlines()
    assert lines[1] == '0.000000,0.5'
    assert len(lines) > 300


def test_full_disk_leaves_the_old_report(tmp_path):
    (tmp_path / 'report.html').write_text('old')
    done = limited("write_text(folder / 'report.html', 'x' * 9000)", 5000, tmp_path)
    assert 'report.html cannot be written: File too large' in done.stderr
    assert '--resume' in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ['report.html']
    assert (tmp_path / 'report.html').read_text() == 'old'


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(VlaError, match='cannot be written'):
        write_text(tmp_path / 'file' / 'report.json', json.dumps({}))
