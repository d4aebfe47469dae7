"""norm_stats.json of bags: openpi's numbers, by another computation."""

import json

import numpy as np
import pytest

pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")

from bag_files import BASE, JOINTS, WRIST, Script, position_at

from vla_trt_ros.cli.main import main
from vla_trt_ros.conversion.statistics import BINS, Running
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.stats import read_statistics
from vla_trt_ros.preprocess.normalize import load_norm_stats


def test_running_statistics_are_those_of_all_rows_at_once():
    rng = np.random.default_rng(0)
    # Later batches are wider: the histogram has to grow twice, on either side.
    batches = [rng.normal([0, 5, -3], 0.1 + k % 3, (500, 7, 3)) for k in range(6)]
    running = Running()
    for batch in batches:
        running.add(batch)
    rows = np.concatenate([b.reshape(-1, 3) for b in batches])
    found = running.stats()
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.std, rows.std(axis=0), rtol=1e-9)
    width = np.ptp(rows, axis=0) / BINS  # and each time it grows, counts move by a bin at most
    for name, share in (('q01', 0.01), ('q99', 0.99)):
        exact = np.quantile(rows, share, axis=0)
        assert (np.abs(getattr(found, name) - exact) < 6 * width).all()
    assert running.count == 6 * 500 * 7


def test_a_column_that_never_moves():
    running = Running()
    running.add(np.full((100, 2), [1.0, -2.0]))
    found = running.stats()
    np.testing.assert_allclose(found.q01, [1.0, -2.0], atol=1e-9)
    np.testing.assert_allclose(found.q99, [1.0, -2.0], atol=1e-9)
    assert found.std.tolist() == [0.0, 0.0]


def test_too_few_rows():
    running = Running()
    with pytest.raises(ConfigError, match='0 step.s. are too few for statistics'):
        running.stats()


def stats(path, out, *words):
    return main(['stats', str(path), '--robot', 'metaworld', '--out', str(out), *words])


def test_actions_are_chunks_that_end_with_the_episode(tmp_path, capsys):
    """Two episodes of 20 and 12 steps; positions rise by a hundredth a step."""
    script = Script().steps(20, skip=(BASE, WRIST))
    script.steps(12, begin_ns=script.rows[-1][2] + 5 * 10**9, skip=(BASE, WRIST))
    path = script.write(tmp_path / 'bag')
    out = tmp_path / 'made' / 'norm_stats.json'
    assert stats(path, out, '--horizon', '8', '--delta', 'gripper') == 0
    said = capsys.readouterr().out
    assert f'{out}: 32 steps' in said
    found = load_norm_stats(out, {'state': 4, 'actions': 4})
    states, chunks = [], []
    for count in (20, 12):
        done = np.array([position_at(k + 1) for k in range(count)])
        for k in range(count):
            state = np.array(position_at(k))
            rows = np.minimum(np.arange(k, k + 8), count - 1)
            states.append(state)
            chunks.append(done[rows] - state * [0, 0, 0, 1])
    for key, rows in (('state', np.array(states)), ('actions', np.array(chunks).reshape(-1, 4))):
        np.testing.assert_allclose(found[key].mean, rows.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(found[key].std, rows.std(axis=0), atol=1e-6)
        width = np.ptp(rows, axis=0) / BINS + 1e-6
        low, high = (np.quantile(rows, q, axis=0, method='inverted_cdf') for q in (0.01, 0.99))
        assert (np.abs(found[key].q01 - low) <= 2 * width).all()
        assert (np.abs(found[key].q99 - high) <= 2 * width).all()
    assert found['actions'].mean[3] < 0.1 < found['state'].mean[3] + 0.1


def test_an_export_reads_what_was_made(tmp_path):
    from vla_trt_ros.bundle import open_bundle
    from vla_trt_ros.config import find_file

    layout = open_bundle(find_file('bundles', 'nano', '')).layout
    path = Script().steps(20).write(tmp_path / 'bag')
    assert stats(path, tmp_path / 'norm_stats.json', '--bundle', 'nano', '--horizon', '10') == 0
    read = read_statistics(tmp_path / 'norm_stats.json', layout)
    assert read.stats['state'].mean[3] == pytest.approx(np.mean(np.arange(20)) / 100, abs=1e-6)
    assert set(json.loads((tmp_path / 'norm_stats.json').read_text())['norm_stats']) == {
        'state',
        'actions',
    }


@pytest.mark.parametrize(
    ('words', 'complaint'),
    [
        (['--horizon', '0'], '--horizon 0 must be 1 at least'),
        (['--delta', 'elbow'], '--delta elbow: robot metaworld has hand_x, hand_y'),
        (['--topic', 'joints'], "--topic 'joints': write ROLE=TOPIC"),
        (['--topic', 'joints=/gone'], "lacks '/gone' (joints)"),
        (['--actions', 'chunk'], '--actions chunk: '),
    ],
)
def test_words_that_cannot_be(tmp_path, words, complaint, capsys):
    path = Script().steps(3).write(tmp_path / 'bag')
    assert stats(path, tmp_path / 'out.json', *words) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / 'out.json').exists()


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    path = Script().steps(3).write(tmp_path / 'bag')
    (tmp_path / 'file').write_text('')
    assert stats(path, tmp_path / 'file' / 'out.json') == 1
    assert 'cannot be written' in capsys.readouterr().err


def test_joint_states_by_another_name(tmp_path):
    path = Script().steps(5, rename={JOINTS: '/arm/states'}).write(tmp_path / 'bag')
    assert stats(path, tmp_path / 'out.json', '--topic', 'joints=/arm/states') == 0
