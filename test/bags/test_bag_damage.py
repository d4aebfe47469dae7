"""Bags that are cut or incomplete: what is whole of them is read."""

import struct

import numpy as np
import pytest
import yaml

pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")

from bag_files import (
    BASE,
    BEGIN_NS,
    IMAGE,
    JOINTS,
    ROBOT,
    STATES,
    STEP_NS,
    STORE,
    WRIST,
    Script,
    cut,
    image,
    position_at,
    states,
    storage_file,
)

from vla_trt_ros.bags.decoding import definition_of
from vla_trt_ros.bags.mcap import McapWriter, Topic
from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.bags.salvage import MAGIC
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
