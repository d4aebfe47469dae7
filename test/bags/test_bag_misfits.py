"""Paths, topics, robots and types that are not what was meant; and bags of ROS 1."""

import struct

import numpy as np
import pytest
import yaml

pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")

from bag_files import (
    BASE,
    BEGIN_NS,
    COMMAND,
    IMAGE,
    JOINTS,
    ROBOT,
    STATES,
    STEP_NS,
    STORE,
    TEXT,
    WRIST,
    Script,
    image,
    make,
    position_at,
    states,
    storage_file,
)

from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.config import load_robot
from vla_trt_ros.errors import ConfigError


def joints_of(bag):
    return [e.payload for e in bag.events('joints')]


def test_paths_that_are_no_bag(tmp_path):
    with pytest.raises(ConfigError, match='no bag is given'):
        open_bag([], ROBOT)
    with pytest.raises(ConfigError, match='gone does not exist; give the folder of a bag'):
        open_bag([tmp_path / 'gone'], ROBOT)
    with pytest.raises(ConfigError, match=r'holds no bag: no metadata.yaml, .mcap or .db3'):
        open_bag([tmp_path], ROBOT)
    (tmp_path / 'notes.txt').write_text('hello')
    with pytest.raises(ConfigError, match=r'notes.txt is no bag: .mcap, .db3, .bag are read'):
        open_bag([tmp_path / 'notes.txt'], ROBOT)


@pytest.mark.parametrize(
    ('name', 'data', 'complaint'),
    [
        ('a.mcap', b'', 'a.mcap is empty: nothing was recorded'),
        ('a.mcap', b'hello, I am text', 'is no MCAP file'),
        ('a.mcap', b'\x89MCAP0\r\n', 'no message of it can be read'),
        ('a.db3', b'', 'a.db3 is empty'),
        ('a.db3', b'hello, I am text', 'is no SQLite database'),
        (
            'a.db3',
            b'SQLite format 3\0' + struct.pack('>H', 4096) + bytes(4078),
            'no message|nothing',
        ),
        ('a.bag', b'#ROSBAG V2.0\n', 'a.bag cannot be read'),
    ],
)
def test_files_that_are_something_else(tmp_path, name, data, complaint):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=complaint):
        open_bag([tmp_path / name], ROBOT)


@pytest.mark.parametrize(
    ('change', 'complaint'),
    [
        ({'storage_identifier': 'leveldb'}, "is stored as 'leveldb'; mcap and sqlite3 are read"),
        ({'compression_format': 'xz', 'compression_mode': 'FILE'}, "is compressed with 'xz'"),
    ],
)
def test_bags_of_other_formats(tmp_path, change, complaint):
    path = Script().steps(1).write(tmp_path / 'bag')
    content = yaml.safe_load((path / 'metadata.yaml').read_text())
    content['rosbag2_bagfile_information'] |= change
    (path / 'metadata.yaml').write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=complaint):
        open_bag([path], ROBOT)


@pytest.mark.parametrize('sqlite', [False, True])
def test_empty_bags(tmp_path, sqlite):
    with pytest.raises(ConfigError, match='is empty: it holds no topic'):
        open_bag([Script().write(tmp_path / 'bag', sqlite=sqlite)], ROBOT)


def test_no_camera_topic(tmp_path):
    path = Script().steps(2, skip=(BASE, WRIST)).write(tmp_path / 'bag')
    with pytest.raises(ConfigError) as error:
        open_bag([path], ROBOT)
    said = str(error.value)
    assert f"lacks '{BASE}' (base), '{WRIST}' (wrist); it holds 2 topic(s):" in said
    assert f'{JOINTS}  {STATES}  2 messages' in said
    assert 'No other of them is sensor_msgs/msg/Image' in said
    assert open_bag([path], ROBOT, need=('joints',)).kinds == {'joints', 'command'}


def test_topics_with_other_names(tmp_path):
    names = {BASE: '/left/cam_base/image', WRIST: '/left/cam_wrist/image'}
    path = Script().steps(2, rename=names).write(tmp_path / 'bag')
    with pytest.raises(ConfigError) as error:
        open_bag([path], ROBOT)
    said = str(error.value)
    for view, topic in (('base', names[BASE]), ('wrist', names[WRIST])):
        assert f'Perhaps --topic {view}={topic}' in said
        assert f'{topic}  {IMAGE}  2 messages' in said
    topics = {'base': names[BASE], 'wrist': names[WRIST].lstrip('/')}
    bag = open_bag([path], ROBOT, topics)
    assert {e.name for e in bag.events('camera')} == {'base', 'wrist'}


@pytest.mark.parametrize(
    ('topics', 'complaint'),
    [
        (
            {'top': '/x'},
            '--topic top=/x: robot metaworld has no such role; it has base, wrist, joi',
        ),
        ({'base': '/gone'}, "lacks '/gone' .base.; it holds"),
        ({'base': JOINTS}, 'is sensor_msgs/msg/JointState; base must be sensor_msgs/msg/Image or'),
    ],
)
def test_mappings_that_do_not_fit(tmp_path, topics, complaint):
    path = Script().steps(1).write(tmp_path / 'bag')
    with pytest.raises(ConfigError, match=complaint):
        open_bag([path], ROBOT, topics)


def test_a_bag_of_another_robot(tmp_path):
    so101 = load_robot('so101')
    script = Script()
    for k in range(3):
        ns = BEGIN_NS + k
        script.add(JOINTS, STATES, ns, states(ns, [0.0] * 7, [*so101.joint_names, 'rail']))
        script.add(BASE, IMAGE, ns, image(ns, k))
        script.add(WRIST, IMAGE, ns, image(ns, k))
    path = script.write(tmp_path / 'bag')
    with pytest.raises(ConfigError) as error:
        open_bag([path], ROBOT)
    assert 'is of another robot than metaworld' in str(error.value)
    assert 'lack hand_x, hand_y, hand_z; they name shoulder_pan' in str(error.value)
    assert open_bag([path], so101).kinds == {'camera', 'joints'}


def test_types_that_nobody_knows_are_left_and_named(tmp_path):
    script = Script().steps(2)
    script.add('/secret', TEXT, BEGIN_NS, make(TEXT, 'x'))
    path = script.write(tmp_path / 'bag', sqlite=True)
    import sqlite3

    with sqlite3.connect(storage_file(path)) as database:
        secret = 'acme_msgs/msg/Secret'
        database.execute('UPDATE topics SET type = ? WHERE name = "/secret"', (secret,))
        database.execute(
            'UPDATE message_definitions SET topic_type = ?, encoded_message_definition = "?!" '
            'WHERE topic_type = ?',
            (secret, TEXT),
        )
    (path / 'metadata.yaml').unlink()  # it still has the old type
    bag = open_bag([path], ROBOT)
    assert len(list(bag.events())) == 8
    assert bag.notes()[1:] == [f'{path}: not used: 1 messages of /secret ({secret}).']


def test_a_definition_that_cannot_be_parsed_makes_its_messages_bad(tmp_path):
    path = Script().steps(2).write(tmp_path / 'bag', sqlite=True)
    import sqlite3

    with sqlite3.connect(storage_file(path)) as database:
        database.execute(
            'UPDATE message_definitions SET encoded_message_definition = "?!" '
            'WHERE topic_type LIKE "traj%"'
        )
    bag = open_bag([path], ROBOT)
    assert len(list(bag.events())) == 8
    assert bag.facts[0].counts['bad_command'] == 2
    assert f'{COMMAND}: trajectory_msgs/msg/JointTrajectory is not understood' in bag.notes()[0]


def test_a_ros_1_bag(tmp_path):
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    path = tmp_path / 'old.bag'
    with Writer(path) as writer:
        links = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, kind in ((BASE, IMAGE), (WRIST, IMAGE), (JOINTS, STATES))
        }
        for k in range(3):
            ns = BEGIN_NS + k * STEP_NS
            time = types['builtin_interfaces/msg/Time'](ns // 10**9, ns % 10**9)
            header = types['std_msgs/msg/Header'](k, time, 'camera')
            now, empty = image(ns, k), np.zeros(0)
            for topic in (BASE, WRIST):
                message = types[IMAGE](header, 24, 32, 'rgb8', 0, 96, now.data)
                writer.write(links[topic], ns, store.serialize_ros1(message, IMAGE))
            message = types[STATES](
                header, list(ROBOT.joint_names), np.array(position_at(k)), empty, empty
            )
            writer.write(links[JOINTS], ns, store.serialize_ros1(message, STATES))
    bag = open_bag([path], ROBOT)
    assert [s.positions.tolist() for s in joints_of(bag)] == [position_at(k) for k in range(3)]
    (*_, last) = (e.payload for e in bag.events('camera'))
    assert (last.height, last.width, last.data[100]) == (24, 32, 2)


def test_the_store_knows_our_messages():
    assert 'vla_trt_ros/msg/ActionChunk' in STORE.fielddefs
