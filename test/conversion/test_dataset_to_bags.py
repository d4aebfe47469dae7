"""A data set becomes bags: every picture and number, and back to the same steps."""

import json

import numpy as np
import pytest

pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")
pytest.importorskip('pyarrow', reason="pip install 'vla_trt_ros[frames]'")

from bag_files import ROBOT, Script
from takes import SHAPE, take

from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.cli.main import main
from vla_trt_ros.conversion.moments import Moments
from vla_trt_ros.sim.dataset.staging import stage
from vla_trt_ros.sim.dataset.writer import DatasetWriter

TAKES = (take('reach', 0), take('push', 1, frames=7, prompt='push the puck'))


@pytest.fixture
def data(tmp_path):
    out = tmp_path / 'set'
    with DatasetWriter(out, SHAPE) as writer:
        writer.add([stage(out, SHAPE, t) for t in TAKES])
    return out


@pytest.mark.parametrize('zstd', [[], ['--zstd']])
def test_every_frame_of_every_episode(tmp_path, data, zstd, capsys):
    out = tmp_path / 'bags'
    words = ['convert', str(data), '--to', 'bag', '--robot', 'metaworld', '--out', str(out), *zstd]
    assert main(words) == 0
    paths = sorted(out.iterdir())
    assert capsys.readouterr().out.split() == [str(p) for p in paths]
    bag = open_bag(paths, ROBOT)
    moments = list(Moments(bag, ROBOT, 'command', SHAPE.views))
    assert bag.notes() == []
    assert [m.episode for m in moments] == [0] * 5 + [1] * 7
    rows = [(t, k) for t in TAKES for k in range(len(t.state))]
    for moment, (source, k) in zip(moments, rows, strict=True):
        np.testing.assert_array_equal(moment.state, source.state[k])
        np.testing.assert_array_equal(moment.action, source.executed[k])
        assert moment.prompt == source.prompt
        for view in SHAPE.views:
            np.testing.assert_array_equal(to_rgb(moment.frames[view]), source.images[view][k])


@pytest.mark.parametrize(
    ('words', 'complaint'),
    [
        (
            ['--robot', 'so101'],
            'observation.state has 4 numbers (hand_x, hand_y, hand_z, gripper)',
        ),
        (['another', '--robot', 'metaworld'], '--to bag takes one data set, not 2'),
    ],
)
def test_what_does_not_fit(tmp_path, data, words, complaint, capsys):
    common = ['--to', 'bag', '--out', str(tmp_path / 'bags')]
    assert main(['convert', str(data), *words, *common]) == 1
    assert complaint in capsys.readouterr().err


def test_other_cameras(tmp_path, data, capsys):
    path = data / 'meta' / 'info.json'
    path.write_text(path.read_text().replace('observation.images.', 'observation.images.top_'))
    words = [
        'convert',
        str(data),
        '--to',
        'bag',
        '--robot',
        'metaworld',
        '--out',
        str(tmp_path / 'x'),
    ]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert 'has none of the views base, wrist of robot metaworld' in said
    assert 'observation.images.top_base' in said


def test_a_data_set_with_videos_wants_lerobot(tmp_path, data, capsys, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'lerobot', None)
    path = data / 'meta' / 'info.json'
    info = json.loads(path.read_text())
    info['features']['observation.images.base']['dtype'] = 'video'
    path.write_text(json.dumps(info))
    words = [
        'convert',
        str(data),
        '--to',
        'bag',
        '--robot',
        'metaworld',
        '--out',
        str(tmp_path / 'x'),
    ]
    assert main(words) == 1
    assert 'is read by lerobot: pip install lerobot' in capsys.readouterr().err


def test_bags_want_lerobot_to_become_a_data_set(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'lerobot', None)
    path = Script().steps(3).write(tmp_path / 'bag')
    words = ['convert', str(path), '--to', 'lerobot', '--robot', 'metaworld']
    assert main([*words, '--out', str(tmp_path / 'set')]) == 1
    assert 'needs its own library: pip install lerobot' in capsys.readouterr().err
