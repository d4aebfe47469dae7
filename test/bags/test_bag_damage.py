"""Bags that are cut, incomplete, or not what was meant."""

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
    cut,
    image,
    make,
    position_at,
    states,
    storage_file,
)

from vla_trt_ros.bags.decoding import definition_of
from vla_trt_ros.bags.mcap import McapWriter, Topic
from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.bags.salvage import MAGIC
from vla_trt_ros.config import load_robot
from vla_trt_ros.errors import ConfigError

BIG = 600
"""Control steps that fill several chunks of an MCAP file."""


def joints_of(bag):
    return [e.payload for e in bag.events('joints')]


def long_bag(path, count=BIG, **storage):
    """Long enough to be cut in the middle of a chunk, of pictures that do not compress."""
    rng = np.random.default_rng(0)
    script = Script().steps(count)
    for _, kind, _, message in script.rows:
        if kind == IMAGE:
            message.data = rng.integers(0, 256, message.data.size, np.uint8)
    return script.write(path, **storage)


@pytest.mark.parametrize('share', [0.99, 0.6])
@pytest.mark.parametrize(
    'storage', [{}, {'mode': 'storage'}, {'mode': 'message'}, {'sqlite': True}], ids=str
)
@pytest.mark.parametrize('lone', [False, True], ids=['folder', 'file'])
def test_what_is_whole_of_a_cut_file_is_read(tmp_path, storage, share, lone):
    path = long_bag(tmp_path / 'bag', **storage)
    file = storage_file(path)
    cut(file, share)
    bag = open_bag([file if lone else path], ROBOT)
    found = joints_of(bag)
    assert 10 < len(found) < BIG + (share > 0.9)
    assert [s.stamp_ns for s in found] == [BEGIN_NS + k * STEP_NS for k in range(len(found))]
    assert found[-1].positions.tolist() == position_at(len(found) - 1)
    notes = '\n'.join(bag.notes())
    assert f'{file} has no end' in notes
    assert 'bytes behind it are lost' in notes
    if not lone and len(found) < BIG:
        assert f'{BIG - len(found)} of {BIG} messages that metadata.yaml lists' in notes


def test_a_cut_compressed_file_is_read_as_far_as_it_goes(tmp_path):
    path = long_bag(tmp_path / 'bag', mode='file')
    cut(storage_file(path), 0.6)
    bag = open_bag([path], ROBOT)
    assert BIG / 2 < len(joints_of(bag)) < BIG
    assert 'has no end' in bag.notes()[0]


def test_a_file_cut_in_its_index_alone_loses_nothing(tmp_path):
    path = Script().steps(20).write(tmp_path / 'bag')
    file = storage_file(path)
    file.write_bytes(file.read_bytes()[:-8])
    bag = open_bag([path], ROBOT)
    assert len(joints_of(bag)) == 20
    assert bag.notes() == []


@pytest.mark.parametrize('mode', ['', 'storage'])
def test_a_cut_chunk_is_read_as_far_as_it_goes(tmp_path, mode):
    """One chunk alone, which never got an end: a short recording that was killed."""
    path = long_bag(tmp_path / 'bag', count=100, mode=mode)
    cut(storage_file(path), 0.5)
    bag = open_bag([path], ROBOT)
    assert 30 < len(joints_of(bag)) < 60


@pytest.mark.parametrize('ended', [True, False])
def test_a_file_without_chunks_whose_messages_are_not_in_order(tmp_path, ended):
    """As rosbag2's fastwrite profile makes it, while two topics come through two threads."""
    bag = McapWriter(tmp_path / 'chunks.mcap')
    for number, (topic, kind) in enumerate(((JOINTS, STATES), (BASE, IMAGE), (WRIST, IMAGE)), 1):
        bag.add(Topic(number, topic, kind, definition_of(kind)))
    order = [0, 2, 1, 3, 5, 4]
    for k in order:
        ns = BEGIN_NS + k * STEP_NS
        bag.write(1, ns, STORE.serialize_cdr(states(ns, position_at(k)), STATES))
        for number in (2, 3):
            bag.write(number, ns, STORE.serialize_cdr(image(ns, k), IMAGE))
    body = bytes(bag._chunk.body)
    bag.close()
    head = (tmp_path / 'chunks.mcap').read_bytes()[: 8 + 9 + 4 + 4 + 4 + 11]
    end = (
        bytes([0x0F])
        + struct.pack('<QI', 4, 0)
        + bytes([0x02])
        + struct.pack('<QQQI', 20, 0, 0, 0)
    )
    path = tmp_path / 'plain.mcap'
    path.write_bytes(head + body + (end + MAGIC if ended else b''))
    bag = open_bag([path], ROBOT)
    assert [s.stamp_ns for s in joints_of(bag)] == [BEGIN_NS + k * STEP_NS for k in order]
    assert ('has no end' in '\n'.join(bag.notes())) is not ended


def test_a_size_that_cannot_be_ends_the_reading(tmp_path):
    path = long_bag(tmp_path / 'bag')
    file = storage_file(path)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + b'\x06' + b'\xff' * 8)
    assert 0 < len(joints_of(open_bag([path], ROBOT))) < BIG


def test_a_broken_byte_in_the_middle_ends_the_file_there(tmp_path):
    path = long_bag(tmp_path / 'bag', mode='storage')
    file = storage_file(path)
    data = bytearray(file.read_bytes())
    middle = data.index(b'\x28\xb5\x2f\xfd', len(data) // 2)  # where a chunk begins
    data[middle : middle + 4] = bytes(4)
    file.write_bytes(data)
    bag = open_bag([path], ROBOT)
    found = joints_of(bag)
    assert 10 < len(found) < BIG
    assert f'{file} cannot be read behind' in bag.notes()[0]


@pytest.mark.parametrize('storage', [{}, {'sqlite': True}, {'mode': 'file'}], ids=str)
@pytest.mark.parametrize('content', [None, '', 'rosbag2_bagfile_information: {version: 5}', '{'])
def test_without_whole_metadata_the_files_are_read_in_the_order_of_names(
    tmp_path, storage, content
):
    path = Script().steps(5).write(tmp_path / 'bag', **storage)
    metadata = path / 'metadata.yaml'
    if content is None:
        metadata.unlink()
    else:
        metadata.write_text(content)
    bag = open_bag([path], ROBOT)
    assert len(joints_of(bag)) == 5
    state = 'is missing' if content is None else 'cannot be read'
    assert bag.notes()[0] == f'{metadata} {state}: read its 1 file(s) in the order of names.'


def split_bag(tmp_path, parts):
    """One bag of several files, ten of them: bag_10 comes behind bag_9."""
    folder = tmp_path / 'split'
    folder.mkdir()
    merged = None
    for i in range(parts):
        begin = BEGIN_NS + i * 2 * STEP_NS
        part = Script().steps(2, begin_ns=begin).write(tmp_path / f'part{i}')
        content = yaml.safe_load((part / 'metadata.yaml').read_text())
        storage_file(part).rename(folder / f'bag_{i}.mcap')
        information = content['rosbag2_bagfile_information']
        if merged is None:
            merged = content
            information['relative_file_paths'] = []
        else:
            rows = merged['rosbag2_bagfile_information']['topics_with_message_count']
            for row in rows:
                row['message_count'] += 2
        merged['rosbag2_bagfile_information']['relative_file_paths'].append(f'bag_{i}.mcap')
    (folder / 'metadata.yaml').write_text(yaml.safe_dump(merged))
    return folder


@pytest.mark.parametrize('metadata', [True, False])
def test_a_split_bag_is_one_bag(tmp_path, metadata):
    folder = split_bag(tmp_path, 12)
    if not metadata:
        (folder / 'metadata.yaml').unlink()
    bag = open_bag([folder], ROBOT)
    times = [s.stamp_ns for s in joints_of(bag)]
    assert times == [BEGIN_NS + k * STEP_NS for k in range(24)]
    assert len(bag.notes()) == (0 if metadata else 1)


def test_a_part_that_is_missing_is_told_and_the_others_are_read(tmp_path):
    folder = split_bag(tmp_path, 3)
    (folder / 'bag_1.mcap').unlink()
    bag = open_bag([folder], ROBOT)
    assert len(joints_of(bag)) == 4
    assert 'bag_1.mcap is missing: metadata.yaml lists it' in bag.notes()[0]
    assert '2 of 6 messages that metadata.yaml lists are not there' in bag.notes()[1]
    for name in ('bag_0.mcap', 'bag_2.mcap'):
        (folder / name).unlink()
    with pytest.raises(ConfigError, match=r'none of the files that metadata.yaml lists is there'):
        open_bag([folder], ROBOT)


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
