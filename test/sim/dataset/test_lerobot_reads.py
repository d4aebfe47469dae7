"""LeRobot's own reader finds what was recorded. Runs where lerobot is installed."""

import numpy as np
import pytest

pytest.importorskip('lerobot', reason='pip install lerobot')

from takes import SHAPE, take

from vla_trt_ros.sim.dataset.staging import stage
from vla_trt_ros.sim.dataset.writer import DatasetWriter

TAKES = (
    take('reach', 0, prompt='go to the target'),
    take('push', 1, frames=7, prompt='push the puck'),
    take('reach', 2, frames=3, prompt='reach the goal'),
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_DATASETS_CACHE', str(tmp_path / 'cache'))
    out = tmp_path / 'set'
    with DatasetWriter(out, SHAPE) as writer:
        writer.add([stage(out, SHAPE, t) for t in TAKES[:2]])
        writer.add([stage(out, SHAPE, t) for t in TAKES[2:]])
    return out


def test_every_frame(root):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset('test', root=root)
    assert (len(data), data.num_episodes, data.fps) == (15, 3, 20)
    places = [(t, i) for t in TAKES for i in range(len(t.state))]
    for index, (source, frame) in enumerate(places):
        item = data[index]
        for view in SHAPE.views:
            planes = item[f'observation.images.{view}'].numpy()
            np.testing.assert_array_equal(
                np.rint(planes.transpose(1, 2, 0) * 255), source.images[view][frame]
            )
        np.testing.assert_array_equal(item['observation.state'], source.state[frame])
        np.testing.assert_array_equal(item['action'], source.action[frame])
        np.testing.assert_array_equal(item['expert_chunk'], source.expert_chunk[frame])
        assert item['task'] == source.prompt
        assert item['timestamp'].item() == pytest.approx(frame / 20)


def test_actions_of_later_frames_end_with_the_episode(root):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset('test', root=root, delta_timestamps={'action': [0.0, 0.05, 0.1]})
    item = data[10]  # one before the last of the second episode
    np.testing.assert_array_equal(item['action'], TAKES[1].action[[5, 6, 6]])
    assert item['action_is_pad'].tolist() == [False, False, True]


def test_statistics_and_features(root):
    from lerobot.datasets.lerobot_dataset import LeRobotDatasetMetadata

    meta = LeRobotDatasetMetadata('test', root=root)
    states = np.concatenate([t.state for t in TAKES])
    np.testing.assert_allclose(
        meta.stats['observation.state']['q99'], np.quantile(states, 0.99, axis=0), rtol=1e-5
    )
    assert meta.stats['observation.images.base']['mean'].shape == (3, 1, 1)
    assert meta.camera_keys == ['observation.images.base', 'observation.images.wrist']
    assert meta.get_task_index('push the puck') == 1
