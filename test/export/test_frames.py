"""Where observations come from."""

import json

import cv2
import numpy as np
import pytest

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.config import find_file, load_robot
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.frames import (
    Frames,
    folder_frames,
    is_judged,
    read_frames,
    spread,
    synthetic_frames,
)
from vla_trt_ros.export.frames_lerobot import item_observation

BUNDLE = open_bundle(find_file('bundles', 'nano', ''))
STATE = [0.1, 0.5, 0.2, 1.0]


def picture(shade):
    image = np.zeros((24, 32, 3), np.uint8)
    image[4:9, 10:20] = shade
    return image


def write_folder(folder, rows=20, **changes):
    """frames.json with two views a frame; frame k is brighter than frame k - 1."""
    listed = []
    for i in range(rows):
        for view in ('base', 'wrist'):
            cv2.imwrite(str(folder / f'{view}{i}.png'), picture(10 * i)[..., ::-1])
        images = {view: f'{view}{i}.png' for view in ('base', 'wrist')}
        listed.append({'images': images, 'state': STATE, 'prompt': 'open the door', **changes})
    (folder / 'frames.json').write_text(json.dumps(listed))
    return folder


def test_a_folder_gives_pictures_states_and_prompts_through_the_robots_own_decoding(tmp_path):
    frames = read_frames(write_folder(tmp_path), BUNDLE, 20)
    assert len(frames.observations) == 20
    seen = frames.observations[7]
    np.testing.assert_array_equal(to_rgb(seen.frames['wrist']), picture(70))
    np.testing.assert_allclose(seen.state, STATE)
    assert seen.prompt == 'open the door'


def test_frames_are_dealt_out_in_turn(tmp_path):
    frames = read_frames(write_folder(tmp_path), BUNDLE, 20)
    a, b = frames.split()
    assert a == frames.observations[::2]
    assert b == frames.observations[1::2]


@pytest.mark.parametrize('length', [40, 64, 100, 1000, 5001])
def test_a_frame_is_of_one_part_however_many_are_taken(length):
    """What gave the scales at export is not judged on later."""
    taken = {n: spread(length, n) for n in (16, 32, 64, 200)}
    for few in taken.values():
        for many in taken.values():
            scales = {i for i in many if not is_judged(i, length)}
            assert not scales & {i for i in few if is_judged(i, length)}
    for n, chosen in taken.items():
        assert chosen == sorted(set(chosen))
        assert len(chosen) == min(n, length)
        judged = sum(is_judged(i, length) for i in chosen)
        assert abs(judged - len(chosen) / 2) <= max(1, len(chosen) * 0.05)
        assert chosen[0] == 0
        assert chosen[-1] > 0.95 * (length - 1)


def test_the_parts_of_a_long_recording_are_stretches_of_time():
    kinds = [is_judged(i, 6400) for i in range(6400)]
    assert kinds[:100] == [False] * 100
    assert kinds[100:200] == [True] * 100
    assert sum(kinds) == 3200


@pytest.mark.parametrize('count', [0, 1, 15])
def test_too_few_frames(count):
    made = synthetic_frames(BUNDLE, count, ['reach']).observations
    with pytest.raises(ConfigError, match=f'demo: {count} frames are too few; 16 at least'):
        Frames(made, 'demo').split()


@pytest.mark.parametrize(
    ('changes', 'complaint'),
    [
        ({'prompt': ' '}, 'frame 0 has no prompt; give one with --prompt'),
        ({'state': [1.0, 2.0]}, 'must be 4 finite numbers: hand_x'),
        ({'state': [1.0, 2.0, float('nan'), 0.0]}, 'must be 4 finite numbers'),
        ({'state': 'up'}, "state 'up' must be numbers"),
        ({'images': {'left': 'base0.png'}}, "view 'left' is none of base, wrist"),
        ({'images': {}}, 'holds no picture'),
        ({'images': None}, 'lacks "images"'),
        ({'images': {'base': 'gone.png'}}, 'gone.png cannot be read'),
        ({'images': {'base': 'frames.json'}}, 'is none of .jpg'),
    ],
)
def test_frames_that_cannot_be_used(tmp_path, changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        folder_frames(write_folder(tmp_path, rows=1, **changes), BUNDLE, 8)


def test_a_prompt_for_frames_that_have_none(tmp_path):
    folder = write_folder(tmp_path, rows=1)
    rows = json.loads((folder / 'frames.json').read_text())
    del rows[0]['prompt']
    (folder / 'frames.json').write_text(json.dumps(rows))
    assert folder_frames(folder, BUNDLE, 8, 'wave').observations[0].prompt == 'wave'


def test_a_file_that_is_no_list(tmp_path):
    (tmp_path / 'frames.json').write_text('{"images": 1}')
    with pytest.raises(ConfigError, match='must hold a JSON list'):
        read_frames(tmp_path, BUNDLE, 8)


def test_a_path_that_is_no_source(tmp_path):
    with pytest.raises(
        ConfigError, match='is no source of frames: give a folder with frames.json'
    ):
        read_frames(tmp_path, BUNDLE, 8)
    (tmp_path / 'metadata.yaml').write_text('')
    with pytest.raises(ConfigError, match='a bag needs the robot file'):
        read_frames(tmp_path, BUNDLE, 8)


def test_made_up_frames_differ_and_repeat():
    one, two = (synthetic_frames(BUNDLE, 3, ['a', 'b'], seed=5).observations for _ in range(2))
    assert [o.prompt for o in one] == ['a', 'b', 'a']
    for x, y in zip(one, two, strict=True):
        np.testing.assert_array_equal(x.frames['base'].data, y.frames['base'].data)
        np.testing.assert_array_equal(x.state, y.state)
    assert (one[0].frames['base'].data != one[1].frames['base'].data).mean() > 0.5
    assert one[0].frames['base'].data.std() > 10


def test_an_item_of_a_lerobot_data_set():
    planes = picture(200).transpose(2, 0, 1) / 255.0
    item = {
        'observation.images.base': planes,
        'observation.images.top': planes,
        'observation.state': np.array(STATE),
        'task': 'stack',
    }
    seen = item_observation(item, BUNDLE, 'item 0')
    assert list(seen.frames) == ['base']  # wrist is a masked view
    np.testing.assert_array_equal(to_rgb(seen.frames['base']), picture(200))
    assert seen.prompt == 'stack'
    del item['observation.images.base']
    with pytest.raises(ConfigError, match='has the cameras top, the bundle wants base, wrist'):
        item_observation(item, BUNDLE, 'item 0')


def test_a_recorded_data_set_needs_no_lerobot(tmp_path, monkeypatch):
    pytest.importorskip('pyarrow', reason="pip install '.[frames]'")
    from takes import SHAPE, take

    from vla_trt_ros.sim.dataset.staging import stage
    from vla_trt_ros.sim.dataset.writer import DatasetWriter

    monkeypatch.setitem(__import__('sys').modules, 'lerobot', None)
    takes = [take(seed=i, frames=9, prompt=f'prompt {i}') for i in range(3)]
    with DatasetWriter(tmp_path, SHAPE) as writer:
        writer.add([stage(tmp_path, SHAPE, t) for t in takes])
    frames = read_frames(tmp_path, BUNDLE, 100)
    assert [len(part) for part in frames.split()] == [14, 13]
    seen = frames.observations[11]  # the third of the second episode
    np.testing.assert_array_equal(to_rgb(seen.frames['wrist']), takes[1].images['wrist'][2])
    np.testing.assert_array_equal(seen.state, takes[1].state[2])
    assert seen.prompt == 'prompt 1'


def test_pyarrow_that_is_not_installed(tmp_path, monkeypatch):
    modules = __import__('sys').modules
    for name in [n for n in modules if n.startswith('vla_trt_ros.sim.dataset.')]:
        monkeypatch.delitem(modules, name)
    for name in ('pyarrow', 'pyarrow.parquet'):
        monkeypatch.setitem(modules, name, None)
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta' / 'info.json').write_text('{}')
    with pytest.raises(ConfigError, match='needs pyarrow: pip install'):
        read_frames(tmp_path, BUNDLE, 8)


def test_lerobot_that_is_not_installed(tmp_path, monkeypatch):
    pytest.importorskip('pyarrow', reason="pip install '.[frames]'")
    monkeypatch.setitem(__import__('sys').modules, 'lerobot', None)
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta' / 'info.json').write_text('{}')
    with pytest.raises(ConfigError, match='pip install lerobot'):
        read_frames(tmp_path, BUNDLE, 8)


def write_bag(path, pictures=18, skip=()):
    """A ROS 2 bag of the metaworld robot's topics, 20 pictures a second and twice the states."""
    pytest.importorskip('rosbags', reason='pip install rosbags')
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    robot = load_robot('metaworld')
    topics = {c.topic: view for view, c in robot.cameras.items() if view in BUNDLE.views}
    with Writer(path, version=9) as writer:
        image, joints = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/JointState'
        links = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, kind in [*((t, image) for t in topics), (robot.joint_states_topic, joints)]
            if topic not in skip
        }

        def write(topic, message, kind, stamp):
            if topic in links:
                writer.write(links[topic], stamp, store.serialize_cdr(message, kind))

        def header(stamp):
            time = types['builtin_interfaces/msg/Time'](stamp // 10**9, stamp % 10**9)
            return types['std_msgs/msg/Header'](stamp=time, frame_id='camera')

        for i in range(pictures):
            stamp = 10**9 + i * 50_000_000
            empty = np.zeros(0)
            position = np.array([*STATE[:3], i / 100])
            state = types[joints](header(stamp), list(BUNDLE.layout.state), position, empty, empty)
            write(robot.joint_states_topic, state, joints, stamp)
            for topic in topics:
                data = picture(10 * i)
                message = types[image](header(stamp + 1), 24, 32, 'rgb8', 0, 96, data.reshape(-1))
                write(topic, message, image, stamp + 1)
    return path


def test_a_bag_gives_what_the_topics_held(tmp_path):
    robot = load_robot('metaworld')
    bag = write_bag(tmp_path / 'bag')
    frames = read_frames(bag, BUNDLE, 100, 'reach', robot)
    assert len(frames.observations) >= 17  # the first moment has one view alone
    seen = frames.observations[-1]
    assert set(seen.frames) == {'base', 'wrist'}
    np.testing.assert_array_equal(to_rgb(seen.frames['base']), picture(170))
    np.testing.assert_allclose(seen.state, [*STATE[:3], 0.17], rtol=1e-6)
    with pytest.raises(ConfigError, match='has no prompt'):
        read_frames(bag, BUNDLE, 100, '', robot)


def test_a_bag_without_a_camera(tmp_path):
    robot = load_robot('metaworld')
    topic = robot.cameras['wrist'].topic
    bag = write_bag(tmp_path / 'bag', skip=(topic,))
    with pytest.raises(ConfigError, match=rf"lacks '{topic}' \(wrist\); it holds 2"):
        read_frames(bag, BUNDLE, 8, 'reach', robot)


def test_rosbags_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'rosbags', None)
    monkeypatch.setitem(__import__('sys').modules, 'rosbags.highlevel', None)
    (tmp_path / 'metadata.yaml').write_text('')
    with pytest.raises(ConfigError, match=r"needs rosbags: pip install 'vla_trt_ros\[bags\]'"):
        read_frames(tmp_path, BUNDLE, 8, 'x', load_robot('metaworld'))
