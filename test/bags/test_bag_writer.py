"""What we write is read by rosbags, and by ourselves, however the writing ended."""

import errno
import os
import resource
import subprocess

import numpy as np
import pytest
import yaml

pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")

from bag_files import (
    BASE,
    BEGIN_NS,
    COMMAND,
    JOINTS,
    ROBOT,
    STATES,
    STEP_NS,
    STORE,
    WRIST,
    position_at,
    states,
)
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from vla_trt_ros.bags.composing import Composer
from vla_trt_ros.bags.mcap import McapWriter
from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.bags.topic_list import command_line, read_list, topics_of
from vla_trt_ros.bags.writer import BagFull, BagWriter, qos_text
from vla_trt_ros.config import load_robot, share_dir
from vla_trt_ros.datatypes import CameraFrame, Command, CommandKind, JointSample
from vla_trt_ros.errors import ConfigError

BYTES = 'std_msgs/msg/UInt8MultiArray'


def state_bytes(k):
    ns = BEGIN_NS + k * STEP_NS
    return ns, STORE.serialize_cdr(states(ns, position_at(k)), STATES)


@pytest.mark.parametrize('zstd', [False, True])
def test_rosbags_reads_what_was_written(tmp_path, zstd):
    path = tmp_path / 'bag'
    with BagWriter(path, zstd=zstd) as bag:
        bag.add('never', BYTES)
        bag.add(JOINTS, STATES, qos=qos_text(reliable=False, latched=True))
        for k in range(5000):
            bag.write(JOINTS, *state_bytes(k))
            if k == 2000:
                bag.flush()  # a chunk of its own
    with AnyReader([path]) as reader:
        assert reader.duration == 4999 * STEP_NS + 1
        counts = {c.topic: c.msgcount for c in reader.connections}
        assert counts == {'never': 0, JOINTS: 5000} == bag.counts
        (qos,) = next(c for c in reader.connections if c.topic == JOINTS).ext.offered_qos_profiles
        assert (qos.reliability.name, qos.durability.name) == ('BEST_EFFORT', 'TRANSIENT_LOCAL')
        for k, (link, ns, raw) in enumerate(reader.messages()):
            assert ns == BEGIN_NS + k * STEP_NS
            message = reader.deserialize(raw, link.msgtype)
            assert message.position.tolist() == position_at(k)
    assert sorted(p.name for p in path.iterdir()) == ['bag_0.mcap', 'metadata.yaml']
    assert bag.size == (path / 'bag_0.mcap').stat().st_size
    with Reader(path / 'bag_0.mcap') as lone:
        assert lone.message_count == 5000


def test_files_of_a_size(tmp_path):
    path = tmp_path / 'bag'
    with BagWriter(path, split_bytes=3_000_000) as bag:
        bag.add('x', BYTES)
        for k in range(40):
            bag.write('x', BEGIN_NS + k, os.urandom(400_000))
    content = yaml.safe_load((path / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
    files = content['relative_file_paths']
    assert len(files) > 3
    for name in files[:-1]:
        assert 3_000_000 <= (path / name).stat().st_size < 3_000_000 + 2_000_000
    assert content['message_count'] == 40 == sum(f['message_count'] for f in content['files'])
    with Reader(path) as reader:
        assert [ns - BEGIN_NS for _, ns, _ in reader.messages()] == list(range(40))


def test_datatypes_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, 16 * 20 * 3, np.uint8)
    frame = CameraFrame(BEGIN_NS + 5, BEGIN_NS + 5, 'cam', 'bgr8', 16, 20, 60, data)
    sample = JointSample(
        BEGIN_NS, BEGIN_NS, ROBOT.joint_names, rng.normal(size=4), rng.normal(size=4)
    )
    still = np.zeros((2, 4))
    way = Command(
        CommandKind.TRAJECTORY,
        BEGIN_NS,
        ROBOT.joint_names,
        rng.normal(size=(2, 4)),
        still,
        np.array([0.05, 0.1]),
    )
    with BagWriter(tmp_path / 'bag') as bag:
        composer = Composer(bag)
        composer.joints(JOINTS, sample)
        composer.command(COMMAND, way)
        for topic in (BASE, WRIST):
            composer.image(topic, frame)
        composer.text('policy/prompt', BEGIN_NS + 6, 'öffne')
    found = {e.kind: e.payload for e in open_bag([tmp_path / 'bag'], ROBOT).events()}
    assert found['prompt'] == 'öffne'
    for name in ('stamp_ns', 'encoding', 'height', 'width', 'step'):
        assert getattr(found['camera'], name) == getattr(frame, name)
    np.testing.assert_array_equal(found['camera'].data, data)
    np.testing.assert_array_equal(found['joints'].positions, sample.positions)
    np.testing.assert_array_equal(found['joints'].velocities, sample.velocities)
    np.testing.assert_array_equal(found['command'].positions, way.positions)
    np.testing.assert_array_equal(found['command'].times, way.times)


def test_a_writer_that_never_closed_leaves_what_was_flushed(tmp_path):
    bag = BagWriter(tmp_path / 'bag')
    bag.add(JOINTS, STATES)
    for k in range(30):
        bag.write(JOINTS, *state_bytes(k))
        if k == 24:
            bag.flush()
    found = open_bag([tmp_path / 'bag'], ROBOT, need=('joints',))
    times = [e.payload.stamp_ns for e in found.events()]
    assert times == [BEGIN_NS + k * STEP_NS for k in range(25)]
    assert 'metadata.yaml is missing' in found.notes()[0]
    assert 'has no end' in found.notes()[1]
    bag.close()


def fill(path, count=200):
    """Write until the disk is full; the error."""

    def write():
        with BagWriter(path) as bag:
            bag.add('x', BYTES)
            for k in range(count):
                bag.write('x', BEGIN_NS + k, os.urandom(300_000))

    with pytest.raises(BagFull) as error:
        write()
    return str(error.value)


def saved_messages(path, said):
    with Reader(path) as reader:
        found = [ns - BEGIN_NS for _, ns, _ in reader.messages()]
        assert found == list(range(reader.message_count))
    assert f'{len(found)} messages, ' in said
    assert 'are saved and can be read; make room before the next recording' in said
    assert sorted(p.name for p in path.iterdir()) == ['bag_0.mcap', 'metadata.yaml']
    return len(found)


def test_a_file_that_may_not_grow_ends_whole(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, hard))
    try:
        said = fill(tmp_path / 'bag')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 'File too large' in said
    assert 20 < saved_messages(tmp_path / 'bag', said) < 27


def test_a_full_disk_ends_the_bag_whole(tmp_path):
    place = tmp_path / 'small'
    place.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip('mounting a small disk needs root')
    try:
        said = fill(place / 'bag')
        assert 'the disk is full' in said
        assert saved_messages(place / 'bag', said) > 20
        (place / 'rest').write_bytes(bytes(os.statvfs(place).f_bavail * 4096 - 8192))
        with pytest.raises(BagFull, match='No space left on device; nothing is recorded'):
            BagWriter(place / 'bag2')
    finally:
        subprocess.run(['umount', str(place)], check=True)


def test_a_disk_without_room_for_the_index_leaves_what_can_be_salvaged(tmp_path, monkeypatch):
    real = os.write
    written = 0

    def write(descriptor, data):
        nonlocal written
        written += len(data)
        if written > 3_000_000:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return real(descriptor, data)

    monkeypatch.setattr('vla_trt_ros.bags.mcap.os.write', write)
    said = fill(tmp_path / 'bag')
    assert 'without their index (`ros2 bag reindex` writes it)' in said
    monkeypatch.undo()
    from vla_trt_ros.bags.salvage import BrokenMcap

    (file,) = (tmp_path / 'bag').glob('*.mcap')
    assert f'{BrokenMcap(file).counts.total()} messages' in said


def test_a_place_that_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match='exists: a recording goes into a new folder'):
        BagWriter(tmp_path)
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match='cannot be made .Not a directory'):
        BagWriter(tmp_path / 'file' / 'bag')


def test_a_type_that_is_nowhere(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag, pytest.raises(ConfigError, match='acme_msgs/msg/X'):
        bag.add('x', 'acme_msgs/msg/X')


def test_a_type_of_an_installed_package(tmp_path, monkeypatch):
    for package, name, text in (
        (
            'acme_msgs',
            'Outer',
            'std_msgs/Header header\nInner[] inner\nother_msgs/Thing[2] things\n',
        ),
        ('acme_msgs', 'Inner', 'float64 x\n'),
        ('other_msgs', 'Thing', 'geometry_msgs/Point p\n'),
    ):
        folder = tmp_path / 'share' / package / 'msg'
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'{name}.msg').write_text(text)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    with BagWriter(tmp_path / 'bag') as bag:
        bag.add('outer', 'acme_msgs/msg/Outer')
    with AnyReader([tmp_path / 'bag']) as reader:
        assert {'acme_msgs/msg/Inner', 'other_msgs/msg/Thing', 'geometry_msgs/msg/Point'} <= set(
            reader.typestore.fielddefs
        )


def test_the_list_in_config_is_that_of_the_default_robot():
    topics = topics_of(load_robot('metaworld'))
    assert read_list(share_dir() / 'config' / 'record.yaml') == topics
    assert command_line(topics).startswith(
        'ros2 bag record --storage mcap --topics base/image_raw '
    )
    assert 'scaled_joint_trajectory_controller/joint_trajectory' in topics_of(load_robot('ur5e'))


@pytest.mark.parametrize(
    'text', ['', '[]', 'topics: 3', '[1, 2]', '{', 'a: {ros__parameters: {}}']
)
def test_lists_that_list_nothing(tmp_path, text):
    path = tmp_path / 'list.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError, match=r'list\.yaml (lists no topics|cannot be read)'):
        read_list(path)
    path.write_text('[a, /b, a]')
    assert read_list(path) == ('a', '/b')


def test_an_mcap_file_is_never_overwritten(tmp_path):
    (tmp_path / 'x.mcap').write_text('precious')
    with pytest.raises(FileExistsError):
        McapWriter(tmp_path / 'x.mcap')
    assert (tmp_path / 'x.mcap').read_text() == 'precious'
