"""A data set is whole at any moment, whatever interrupts the writer."""

import json
from pathlib import Path

import numpy as np
import pytest

from vla_trt_ros.errors import ConfigError

pytest.importorskip('pyarrow', reason="pip install '.[sim]'")

from takes import SHAPE, take

from vla_trt_ros.sim.dataset import layout
from vla_trt_ros.sim.dataset.layout import Layout, numbered
from vla_trt_ros.sim.dataset.reader import read_dataset
from vla_trt_ros.sim.dataset.staging import stage
from vla_trt_ros.sim.dataset.writer import DatasetWriter


def staged(root, *seeds, scene='reach'):
    return [stage(root, SHAPE, take(scene, seed)) for seed in seeds]


def read_json(root, place):
    return json.loads((root / place).read_text())


def held(root):
    """(episode, seed, first pixel) of everything that a reader finds."""
    return [(e.index, e.seed, int(e.image('base', 0)[0, 0, 0])) for e in read_dataset(root)]


def expected(*seeds):
    return [(i, s, int(take(seed=s).images['base'][0, 0, 0, 0])) for i, s in enumerate(seeds)]


def test_numbers_run_on_over_files_and_calls(tmp_path):
    with DatasetWriter(tmp_path, SHAPE) as writer:
        writer.add(staged(tmp_path, 3, 1))
    with DatasetWriter(tmp_path, SHAPE) as writer:
        assert writer.recorded == {('reach', 3), ('reach', 1)}
        writer.add(staged(tmp_path, 2))
    assert held(tmp_path) == expected(3, 1, 2)
    rows = DatasetWriter(tmp_path, SHAPE).rows
    assert [(r['dataset_from_index'], r['dataset_to_index']) for r in rows] == [
        (0, 5),
        (5, 10),
        (10, 15),
    ]
    assert [r['data/file_index'] for r in rows] == [0, 0, 1]
    info = read_json(tmp_path, layout.INFO)
    assert (info['total_episodes'], info['total_frames']) == (3, 15)
    assert info['splits'] == {'train': '0:3'}


def test_statistics_are_of_all_frames_exactly(tmp_path):
    with DatasetWriter(tmp_path, SHAPE) as writer:
        writer.add(staged(tmp_path, 0, 1))
    with DatasetWriter(tmp_path, SHAPE) as writer:
        writer.add(staged(tmp_path, 2))
    stats = read_json(tmp_path, layout.STATS)
    states = np.concatenate([take(seed=s).state for s in (0, 1, 2)])
    for name, value in (
        ('q01', np.quantile(states, 0.01, axis=0)),
        ('q99', np.quantile(states, 0.99, axis=0)),
        ('mean', states.mean(axis=0)),
        ('std', states.std(axis=0)),
    ):
        np.testing.assert_allclose(stats['observation.state'][name], value, rtol=1e-5)
    assert stats['action']['count'] == [15]
    base = np.concatenate([take(seed=s).images['base'] for s in (0, 1, 2)]) / 255.0
    pixels = base[:, ::4, ::4].reshape(-1, 3)
    image = stats['observation.images.base']
    np.testing.assert_allclose(np.squeeze(image['mean']), pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.squeeze(image['std']), pixels.std(axis=0), rtol=1e-5)
    assert np.shape(image['q99']) == (3, 1, 1)


def test_staged_episodes_of_a_killed_writer_are_taken_in(tmp_path):
    writer = DatasetWriter(tmp_path, SHAPE)
    writer.add(staged(tmp_path, 0))
    staged(tmp_path, 7)
    half = tmp_path / layout.UNFINISHED / 'reach-8.parquet.123.half'
    half.write_bytes(b'PAR1 and no more')
    writer._lock.close()  # as the system does for a process that was killed
    with DatasetWriter(tmp_path, SHAPE) as writer:
        assert writer.recorded == {('reach', 0), ('reach', 7)}
    assert held(tmp_path) == expected(0, 7)
    assert not (tmp_path / layout.UNFINISHED).exists()


def test_a_data_file_that_was_not_counted_is_written_again(tmp_path):
    """Killed between the two renames: the frames stand there, the episode rows do not."""
    with DatasetWriter(tmp_path, SHAPE) as writer:
        writer.add(staged(tmp_path, 0))
    with DatasetWriter(tmp_path, SHAPE) as writer:
        episodes = staged(tmp_path, 5, 6)
        copies = {e.path: e.path.read_bytes() for e in episodes}
        writer.add(episodes)
    for path, content in copies.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    numbered(tmp_path / layout.EPISODES_DIR, 1).unlink()
    with DatasetWriter(tmp_path, SHAPE):
        pass
    assert held(tmp_path) == expected(0, 5, 6)
    assert read_json(tmp_path, layout.INFO)['total_frames'] == 15


def test_episodes_that_were_counted_are_not_taken_in_again(tmp_path):
    """Killed after the episode rows, before the staged files went."""
    with DatasetWriter(tmp_path, SHAPE) as writer:
        writer.add(staged(tmp_path, 4))
    staged(tmp_path, 4)
    (tmp_path / layout.INFO).unlink()
    with DatasetWriter(tmp_path, SHAPE) as writer:
        assert writer.episodes == 1
    assert held(tmp_path) == expected(4)


@pytest.mark.parametrize('fails', range(1, 6))
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, fails):
    """Each of the files that ``add`` replaces finds no room in turn; the next writer mends it."""
    with DatasetWriter(tmp_path, SHAPE) as writer:
        writer.add(staged(tmp_path, 0))
    calls = 0
    replace = layout.os.replace

    def full(source, target):
        nonlocal calls
        calls += 1
        if calls == fails:
            raise OSError(28, 'No space left on device')
        replace(source, target)

    with DatasetWriter(tmp_path, SHAPE) as writer:
        episodes = staged(tmp_path, 1)
        monkeypatch.setattr(layout.os, 'replace', full)
        with pytest.raises(OSError, match='No space left'):
            writer.add(episodes)
    monkeypatch.undo()
    assert held(tmp_path)[:1] == expected(0)
    assert not list(tmp_path.rglob('*.half'))
    with DatasetWriter(tmp_path, SHAPE):
        pass
    assert held(tmp_path) == expected(0, 1)


def test_failures_are_remembered(tmp_path):
    with DatasetWriter(tmp_path, SHAPE) as writer:
        writer.fail('push', 3, 'not solved in 250 steps')
    with DatasetWriter(tmp_path, SHAPE) as writer:
        assert writer.failed == {('push', 3): 'not solved in 250 steps'}
        assert writer.recorded == set()
        writer.forget_failures()
    with DatasetWriter(tmp_path, SHAPE) as writer:
        assert writer.failed == {}


def test_two_writers_at_a_time(tmp_path):
    with DatasetWriter(tmp_path, SHAPE), pytest.raises(ConfigError, match='another recording'):
        DatasetWriter(tmp_path, SHAPE)


@pytest.mark.parametrize(
    ('change', 'complaint'),
    [
        ({'width': 24}, r'recorded with image_size \[20, 16\], this call asks for \[24, 16\]'),
        ({'fps': 10}, 'recorded with fps 20, this call asks for 10'),
        ({'views': ('base',)}, 'recorded with views'),
    ],
)
def test_frames_of_another_shape(tmp_path, change, complaint):
    with DatasetWriter(tmp_path, SHAPE) as writer:
        writer.add(staged(tmp_path, 0))
    other = {name: getattr(SHAPE, name) for name in SHAPE.__slots__} | change
    with pytest.raises(ConfigError, match=complaint):
        DatasetWriter(tmp_path, Layout(**other))


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / 'thesis.tex').write_text('')
    with pytest.raises(ConfigError, match='holds something that was not recorded here'):
        DatasetWriter(tmp_path, SHAPE)
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']
    with pytest.raises(ConfigError, match='holds something'):
        DatasetWriter(tmp_path / 'thesis.tex', SHAPE)


def test_a_thousand_files_fill_a_chunk():
    assert numbered(Path('data'), 999) == Path('data/chunk-000/file-999.parquet')
    assert numbered(Path('data'), 1000) == Path('data/chunk-001/file-000.parquet')
