"""What was recorded comes back to the last bit."""

import json

import numpy as np
import pytest

from vla_trt_ros.errors import ConfigError

pytest.importorskip('pyarrow', reason="pip install '.[sim]'")

import pyarrow as pa
import pyarrow.parquet as pq
from takes import SHAPE, take

from vla_trt_ros.sim.dataset import layout
from vla_trt_ros.sim.dataset.reader import Dataset, is_readable, read_dataset
from vla_trt_ros.sim.dataset.staging import stage
from vla_trt_ros.sim.dataset.writer import DatasetWriter

TAKES = (
    take('reach', 0, prompt='go to the target'),
    take('push', 1, frames=7, prompt='push the puck', noise=0.0),
    take('reach', 2, frames=1, prompt='go to the target', noise=0.6),
)


@pytest.fixture
def root(tmp_path):
    with DatasetWriter(tmp_path, SHAPE) as writer:
        writer.add([stage(tmp_path, SHAPE, t) for t in TAKES[:2]])
        writer.add([stage(tmp_path, SHAPE, t) for t in TAKES[2:]])
    return tmp_path


def test_every_number_and_pixel(root):
    stored = list(read_dataset(root))
    assert len(stored) == len(TAKES)
    for index, (episode, source) in enumerate(zip(stored, TAKES, strict=True)):
        assert (episode.index, len(episode)) == (index, len(source.state))
        for name in ('scene', 'seed', 'noise', 'prompt'):
            assert getattr(episode, name) == getattr(source, name)
        for name in ('state', 'action', 'executed', 'expert_chunk'):
            value = getattr(episode, name)
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, getattr(source, name))
        for view in SHAPE.views:
            np.testing.assert_array_equal(episode.images(view), source.images[view])


def test_some_scenes_and_some_episodes(root):
    assert [e.index for e in read_dataset(root, scenes=['reach'])] == [0, 2]
    assert [e.index for e in read_dataset(root, episodes=[2, 1])] == [2, 1]
    assert [e.index for e in read_dataset(root, scenes=['push'], episodes=[0, 1])] == [1]
    with pytest.raises(ConfigError, match='has 3 episodes, from 0; there is no 3'):
        list(read_dataset(root, episodes=[3]))


def test_single_frames(root):
    data = Dataset(root)
    assert len(data) == 13
    item = data[6]  # the second frame of the second episode
    np.testing.assert_array_equal(item['observation.images.wrist'], TAKES[1].images['wrist'][1])
    np.testing.assert_array_equal(item['observation.state'], TAKES[1].state[1])
    assert item['task'] == 'push the puck'
    assert item['timestamp'] == pytest.approx(0.05)
    assert data[12]['task'] == 'go to the target'


def test_frames_over_the_border_of_two_files(root):
    frames = Dataset(root).frames(10, 13, ['index', 'episode_index']).to_pylist()
    assert [f['index'] for f in frames] == [10, 11, 12]
    assert [f['episode_index'] for f in frames] == [1, 1, 2]


def test_a_data_set_that_another_program_wrote(root):
    """One row group for many episodes, prompts under pandas' own index name, no seeds."""
    data = root / 'data/chunk-000/file-000.parquet'
    pq.write_table(pq.read_table(data), data, row_group_size=100)
    tasks = pq.read_table(root / layout.TASKS)
    pq.write_table(tasks.rename_columns(['task_index', '__index_level_0__']), root / layout.TASKS)
    for path in (root / layout.EPISODES_DIR).rglob('*.parquet'):
        pq.write_table(pq.read_table(path).drop_columns(['seed']), path)
    np.testing.assert_array_equal(
        Dataset(root)[7]['observation.images.base'], TAKES[1].images['base'][2]
    )
    with pytest.raises(ConfigError, match='was not recorded by vla-trt sim record'):
        list(read_dataset(root))


def test_what_is_not_read(root, tmp_path_factory):
    assert is_readable(root)
    empty = tmp_path_factory.mktemp('empty')
    assert not is_readable(empty)
    with pytest.raises(ConfigError, match='holds no LeRobot data set'):
        Dataset(empty)
    info = json.loads((root / layout.INFO).read_text())
    (root / layout.INFO).write_text(json.dumps({**info, 'codebase_version': 'v2.1'}))
    with pytest.raises(ConfigError, match='is a LeRobot data set v2.1; v3.0 is read here'):
        Dataset(root)
    info['features']['observation.images.base']['dtype'] = 'video'
    (root / layout.INFO).write_text(json.dumps(info))
    with pytest.raises(ConfigError, match='keeps observation.images.base as video'):
        Dataset(root)


def test_the_columns_are_those_that_lerobot_expects(root):
    """Names, types and pandas' index, as LeRobot 0.4.4 wrote and read them."""
    schema = pq.read_schema(root / 'data/chunk-000/file-000.parquet')
    assert schema.field('observation.images.base').type == pa.struct(
        [('bytes', pa.binary()), ('path', pa.string())]
    )
    assert schema.field('action').type == pa.list_(pa.float32(), 4)
    assert schema.field('expert_chunk').type == pa.list_(pa.list_(pa.float32()))
    assert [schema.field(n).type for n in ('timestamp', 'index')] == [pa.float32(), pa.int64()]
    pandas = json.loads(pq.read_schema(root / layout.TASKS).metadata[b'pandas'])
    assert pandas['index_columns'] == ['task']
    episodes = pq.read_schema(root / 'meta/episodes/chunk-000/file-001.parquet').names
    assert {'episode_index', 'tasks', 'length', 'data/chunk_index', 'data/file_index'} < set(
        episodes
    )
    # A name that begins with "action" would be an output of LeRobot's policies.
    assert [n for n in schema.names if n.startswith('action')] == ['action']
