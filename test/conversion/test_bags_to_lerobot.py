"""Bags to a LeRobot data set and back. Runs where lerobot is installed."""

import numpy as np
import pytest

pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")
pytest.importorskip('lerobot', reason='pip install lerobot')

from bag_files import BASE, BEGIN_NS, IMAGE, ROBOT, STEP_NS, TEXT, Script, image, make, position_at

from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.cli.main import main
from vla_trt_ros.conversion.moments import Moments

VIEWS = ('base', 'wrist')


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_DATASETS_CACHE', str(tmp_path / 'cache'))


def convert(bag, out, *words):
    common = ['--to', 'lerobot', '--robot', 'metaworld', '--out', str(out)]
    return main(['convert', str(bag), *common, *words])


def test_there_and_back(tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    script = Script()
    script.add('policy/prompt', TEXT, BEGIN_NS - 5, make(TEXT, 'reach'))
    script.steps(6)
    script.add('policy/prompt', TEXT, BEGIN_NS + 6 * STEP_NS - 5, make(TEXT, 'push'))
    script.steps(4, begin_ns=BEGIN_NS + 6 * STEP_NS)
    path = script.write(tmp_path / 'bag')
    assert convert(path, tmp_path / 'set') == 0
    data = LeRobotDataset('set', root=tmp_path / 'set')
    assert (len(data), data.num_episodes, data.fps) == (10, 2, 20)
    assert [data[i]['task'] for i in (0, 5, 6, 9)] == ['reach', 'reach', 'push', 'push']
    np.testing.assert_allclose(data[3]['action'].numpy(), position_at(4), rtol=1e-6)
    words = ['--to', 'bag', '--robot', 'metaworld', '--out', str(tmp_path / 'bags')]
    assert main(['convert', str(tmp_path / 'set'), *words]) == 0
    before = list(Moments(open_bag([path], ROBOT), ROBOT, 'command', VIEWS))
    again = open_bag(sorted((tmp_path / 'bags').iterdir()), ROBOT)
    after = list(Moments(again, ROBOT, 'command', VIEWS))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a.state, b.state)
        np.testing.assert_array_equal(a.action, b.action)
        assert (a.prompt, a.episode) == (b.prompt, b.episode)
        for view in VIEWS:
            np.testing.assert_array_equal(to_rgb(a.frames[view]), to_rgb(b.frames[view]))


def test_what_cannot_become_a_data_set(tmp_path, capsys):
    path = Script().steps(3).write(tmp_path / 'bag')
    assert convert(path, tmp_path) == 1
    assert 'exists: a data set goes into a new folder' in capsys.readouterr().err
    assert convert(path, tmp_path / 'set') == 1
    assert 'the bag holds no prompt: say what was done with --task' in capsys.readouterr().err
    script = Script().steps(3)
    script.add(BASE, IMAGE, BEGIN_NS + 3 * STEP_NS, image(BEGIN_NS + 3 * STEP_NS, 1, height=30))
    script.steps(3, begin_ns=BEGIN_NS + 3 * STEP_NS, skip=(BASE,))
    path = script.write(tmp_path / 'other')
    assert convert(path, tmp_path / 'set2', '--task', 'reach') == 1
    assert 'pictures change from' in capsys.readouterr().err
