"""What a bag gives: the same datatypes as live topics, in the order of time."""

import numpy as np
import pytest

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
    TEXT,
    WRIST,
    Script,
    image,
    make,
    position_at,
    stamped,
    states,
    storage_file,
    trajectory,
)

from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.datatypes import NS, ActionChunk, CommandKind
from vla_trt_ros.errors import BadAction, BadImage, BadState

STORAGES = [
    {},
    {'mode': 'storage'},
    {'mode': 'message'},
    {'mode': 'file'},
    {'sqlite': True},
    {'sqlite': True, 'mode': 'message'},
    {'sqlite': True, 'mode': 'file'},
]


def read(path, **options):
    bag = open_bag([path], ROBOT, **options)
    return bag, list(bag.events())


def of(events, kind, name=None):
    return [e for e in events if e.kind == kind and name in (None, e.name)]


@pytest.mark.parametrize('storage', STORAGES, ids=str)
@pytest.mark.parametrize('lone', [False, True], ids=['folder', 'file'])
def test_every_storage_gives_the_same_events(tmp_path, storage, lone):
    path = Script().steps(20).write(tmp_path / 'bag', **storage)
    bag, events = read(storage_file(path) if lone else path)
    assert len(events) == bag.messages == 80
    assert [e.time_ns for e in events] == sorted(e.time_ns for e in events)
    for view, shade in (('base', 0), ('wrist', 5)):
        frames = [e.payload for e in of(events, 'camera', view)]
        assert [f.stamp_ns for f in frames] == [BEGIN_NS + k * STEP_NS for k in range(20)]
        for k, frame in enumerate(frames):
            pixels = to_rgb(frame)
            assert pixels.shape == (24, 32, 3)
            assert pixels[5, 5].tolist() == [10 * k + shade] * 3
            assert pixels[0, 0].tolist() == [255 - 10 * k - shade] * 3
    for k, event in enumerate(of(events, 'joints')):
        assert event.payload.names == ROBOT.joint_names
        np.testing.assert_array_equal(event.payload.positions, position_at(k))
    for k, event in enumerate(of(events, 'command')):
        command = event.payload
        assert command.kind is CommandKind.TRAJECTORY
        np.testing.assert_array_equal(command.positions, [position_at(k + 1)])
        assert command.times.tolist() == [STEP_NS / NS]
    assert bag.notes() == []


def test_several_bags_come_one_behind_the_other(tmp_path):
    late = Script().steps(3, begin_ns=BEGIN_NS + 100 * NS).write(tmp_path / 'late')
    early = Script().steps(2).write(tmp_path / 'early')
    bag = open_bag([late, early], ROBOT)
    events = list(bag.events('joints'))
    assert [e.bag for e in events] == [0, 0, 0, 1, 1]
    assert events[0].time_ns == BEGIN_NS + 100 * NS
    assert [f.path for f in bag.facts] == [late, early] == list(bag.paths)


def test_kinds_that_are_not_asked_for_are_not_read(tmp_path):
    path = Script().steps(4).write(tmp_path / 'bag')
    bag = open_bag([path], ROBOT)
    assert {e.kind for e in bag.events('joints', 'command')} == {'joints', 'command'}
    assert bag.kinds == {'camera', 'joints', 'command'}
    assert len(list(bag.events())) == 16  # once more, from the beginning


def test_chunks_and_prompts_of_a_policy_with_types_that_only_we_know(tmp_path):
    """A bag of Humble in sqlite3 holds no definitions: ours come from the package."""
    script = Script().steps(2)
    status = 'vla_trt_ros/msg/PolicyStatus'
    chunk = 'vla_trt_ros/msg/ActionChunk'
    for k, prompt in enumerate(['', 'reach', 'reach', 'push']):
        script.add('policy/status', status, BEGIN_NS + k, _status(prompt))
    script.add('action_chunk', chunk, BEGIN_NS + 9, _chunk())
    script.add('policy/prompt', TEXT, BEGIN_NS + 10, make(TEXT, 'push'))
    _, events = read(script.write(tmp_path / 'bag'))
    assert [e.payload for e in of(events, 'prompt')] == ['reach', 'push', 'push']
    (event,) = of(events, 'chunk')
    assert isinstance(event.payload, ActionChunk)
    np.testing.assert_array_equal(event.payload.actions, np.arange(8).reshape(2, 4))
    bag = open_bag([tmp_path / 'bag'], ROBOT)
    assert [e.payload for e in bag.events('prompt')] == ['reach', 'push', 'push']


def test_a_bag_without_definitions_is_read_by_those_of_ros(tmp_path):
    path = Script().steps(2).write(tmp_path / 'bag', sqlite=True)
    import sqlite3

    with sqlite3.connect(storage_file(path)) as database:
        database.execute('DELETE FROM message_definitions')
    _, events = read(path)
    assert len(events) == 8
    assert of(events, 'joints')[1].payload.positions.tolist() == position_at(1)


def test_position_commands_get_the_names_of_the_robot(tmp_path):
    kind = 'std_msgs/msg/Float64MultiArray'
    layout = make('std_msgs/msg/MultiArrayLayout', [], 0)
    script = Script().steps(1, skip=(COMMAND,))
    topic = ROBOT.controller.of_kind('position').topic
    script.add(topic, kind, BEGIN_NS + 7, make(kind, layout, np.array([0.1, 0.5, 0.2, 1.0])))
    script.add(topic, kind, BEGIN_NS + 8, make(kind, layout, np.array([0.1, 0.5])))
    bag, events = read(script.write(tmp_path / 'bag'))
    good, bad = of(events, 'command')
    assert good.payload.names == ROBOT.joint_names
    assert good.payload.stamp_ns == BEGIN_NS + 7
    with pytest.raises(BadAction, match='command has 2 values for 4 joints'):
        bad.payload  # noqa: B018 - asking is what raises
    assert '1 command message(s) cannot be used: command has 2 values' in bag.notes()[0]


def test_messages_that_cannot_be_used_are_counted_and_the_rest_is_read(tmp_path):
    script = Script().steps(3)
    script.add(BASE, IMAGE, BEGIN_NS + 3 * STEP_NS, image(0, 1))
    broken = image(BEGIN_NS + 4 * STEP_NS, 1)
    broken.data = broken.data[:10]
    script.add(BASE, IMAGE, BEGIN_NS + 4 * STEP_NS, broken)
    script.add(BASE, IMAGE, BEGIN_NS + 5 * STEP_NS, b'\x00\x01\x00\x00nonsense')
    few = states(BEGIN_NS + 6 * STEP_NS, [0.1])
    script.add(JOINTS, STATES, BEGIN_NS + 6 * STEP_NS, few)
    script.add(
        JOINTS, STATES, BEGIN_NS + 7 * STEP_NS, states(BEGIN_NS + 7 * STEP_NS, position_at(7))
    )
    bag, events = read(script.write(tmp_path / 'bag'))
    assert bag.facts[0].counts['bad_camera'] == 3
    assert bag.facts[0].counts['bad_joints'] == 1
    last = of(events, 'camera', 'base')[-2:]
    with pytest.raises(BadImage):
        last[0].payload  # noqa: B018
    assert of(events, 'joints')[-1].payload.positions.tolist() == position_at(7)
    with pytest.raises(BadState, match='4 names and 1 positions'):
        of(events, 'joints')[-2].payload  # noqa: B018
    notes = '\n'.join(bag.notes())
    assert '3 camera message(s) cannot be used: header.stamp is zero' in notes


def test_cameras_of_two_rates(tmp_path):
    script = Script()
    for k in range(30):
        script.add(BASE, IMAGE, BEGIN_NS + k * NS // 30, image(BEGIN_NS + k * NS // 30, k))
    for k in range(10):
        ns = BEGIN_NS + k * NS // 10 + 1000
        script.add(WRIST, IMAGE, ns, image(ns, k))
        script.add(JOINTS, STATES, ns, states(ns, position_at(k)))
    bag, events = read(script.write(tmp_path / 'bag'))
    assert (len(of(events, 'camera', 'base')), len(of(events, 'camera', 'wrist'))) == (30, 10)
    topics = bag.facts[0].clock.topics
    assert topics[BASE].rate_hz == pytest.approx(30, rel=1e-6)
    assert topics[WRIST].rate_hz == pytest.approx(10, rel=1e-6)


def test_joints_that_change_their_order(tmp_path):
    script = Script().steps(3)
    turned = tuple(reversed(ROBOT.joint_names))
    for k in (3, 4):
        ns = BEGIN_NS + k * STEP_NS
        script.add(JOINTS, STATES, ns, states(ns, position_at(k)[::-1], turned))
    bag, events = read(script.write(tmp_path / 'bag'))
    last = of(events, 'joints')[-1].payload
    assert dict(zip(last.names, last.positions.tolist(), strict=True)) == dict(
        zip(ROBOT.joint_names, position_at(4), strict=True)
    )
    assert bag.facts[0].counts['joint_order_changes'] == 1
    assert 'joint states change the order of their joints 1 time(s)' in bag.notes()[0]


def test_time_that_jumps_back_and_silences(tmp_path):
    script = Script().steps(4).steps(4, begin_ns=BEGIN_NS + 5 * NS)
    for k in (0, 5):  # comes seldom, and is not missed
        script.add('policy/prompt', TEXT, BEGIN_NS + k * NS, make(TEXT, 'go'))
    # A driver that starts anew: its stamps jump back while the recorder's clock goes on.
    ns = BEGIN_NS + 6 * NS
    script.add(BASE, IMAGE, ns, image(BEGIN_NS + 5 * NS, 1))
    bag, _ = read(script.write(tmp_path / 'bag'))
    clock = bag.facts[0].clock
    assert clock.topics[BASE].backward == 1
    assert clock.topics[JOINTS].gaps == 1
    assert clock.topics[JOINTS].longest_gap_ns == 5 * NS - 3 * STEP_NS
    notes = '\n'.join(bag.notes())
    assert f'{BASE}: stamps jump back 1 time(s)' in notes
    assert 'policy/prompt' not in notes
    assert f'{JOINTS}: 1 silence(s) of more than a second, the longest of 4.8 s' in notes


def test_log_time_that_jumps_back_between_files(tmp_path):
    """The parts of a split bag, in the order of their names."""
    folder = tmp_path / 'bag'
    folder.mkdir()
    for i, begin in enumerate((BEGIN_NS + 10 * NS, BEGIN_NS)):
        part = Script().steps(2, begin_ns=begin).write(tmp_path / f'part{i}')
        storage_file(part).rename(folder / f'bag_{9 + i}.mcap')
    bag, events = read(folder)
    assert [e.time_ns for e in of(events, 'joints')][2] == BEGIN_NS
    assert bag.facts[0].clock.log_backward == 1
    assert 'the time of recording jumps back 1 time(s)' in '\n'.join(bag.notes())
    assert 'metadata.yaml is missing: read its 2 file(s) in the order of names' in bag.notes()[0]


def test_simulated_time_is_told_from_the_time_of_recording(tmp_path):
    """Stamps begin near zero, the recorder's clock is of today: the stamps count."""
    script = Script()
    for k in range(3):
        log_ns, ns = BEGIN_NS + 3 * k * STEP_NS, NS + k * STEP_NS
        script.add(JOINTS, STATES, log_ns, states(ns, position_at(k)))
        script.add(BASE, IMAGE, log_ns, image(ns, k))
        script.add(WRIST, IMAGE, log_ns, image(ns, k))
        script.add('policy/prompt', TEXT, log_ns + 5, make(TEXT, f'go {k}'))
    bag, events = read(script.write(tmp_path / 'bag'))
    assert [e.time_ns for e in of(events, 'joints')] == [NS + k * STEP_NS for k in range(3)]
    assert [e.time_ns for e in of(events, 'prompt')] == [NS + k * STEP_NS + 5 for k in range(3)]
    assert 'stamps are of another clock than the recording in 9 message(s)' in bag.notes()[0]


def _status(prompt):
    kind = 'vla_trt_ros/msg/PolicyStatus'
    header = image(BEGIN_NS, 0).header
    none = np.zeros(0, np.uint64)
    return make(
        kind, header, 'policy', 3, 0, '', prompt, 0, 10, 5.0, False, False, 0, 0, 0, 0, [], none
    )


def _chunk():
    time = make('builtin_interfaces/msg/Time', BEGIN_NS // NS, 0)
    step = make('builtin_interfaces/msg/Duration', 0, STEP_NS)
    uuid = make('unique_identifier_msgs/msg/UUID', np.zeros(16, np.uint8))
    rows = np.arange(8, dtype=np.float32)
    none = np.zeros(0, np.float32)
    header = image(BEGIN_NS, 0).header
    return make(
        'vla_trt_ros/msg/ActionChunk',
        *(header, time, 0, 0, uuid, 1, 1, 0, list(ROBOT.joint_names), 2, step, rows, none),
        *(0, 1, 10, 0, 'abc', 0, 0),
    )


def test_compressed_pictures(tmp_path):
    import cv2

    kind = 'sensor_msgs/msg/CompressedImage'
    script = Script().steps(1, skip=(WRIST,))
    picture = np.full((24, 32, 3), (200, 100, 50), np.uint8)
    data = cv2.imencode('.png', picture[..., ::-1])[1].ravel()
    script.add(WRIST, kind, BEGIN_NS, make(kind, stamped(BEGIN_NS), 'png', data))
    _, events = read(script.write(tmp_path / 'bag'))
    (event,) = of(events, 'camera', 'wrist')
    np.testing.assert_array_equal(to_rgb(event.payload), picture)


def test_a_trajectory_that_is_ragged(tmp_path):
    script = Script().steps(1, skip=(COMMAND,))
    ragged = trajectory(BEGIN_NS, [1.0])
    script.add(COMMAND, 'trajectory_msgs/msg/JointTrajectory', BEGIN_NS, ragged)
    _, events = read(script.write(tmp_path / 'bag'))
    with pytest.raises(BadAction, match='point 0 has 1 positions for 4 joints'):
        of(events, 'command')[0].payload  # noqa: B018
