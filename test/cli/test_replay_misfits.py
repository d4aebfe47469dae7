"""vla-trt replay on bags and orders that are wrong or odd."""

import json
import re
import shutil
import subprocess
import sys

import pytest

pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")

from bag_files import (
    BASE,
    BEGIN_NS,
    COMMAND,
    IMAGE,
    JOINTS,
    STATES,
    STEP_NS,
    TEXT,
    TRAJECTORY,
    WRIST,
    Script,
    cut,
    image,
    make,
    position_at,
    states,
    storage_file,
    trajectory,
)
from replay_command import replay

from vla_trt_ros.datatypes import NS

pytestmark = pytest.mark.usefixtures('shared_engines')


def refused(capsys, tmp_path, bag, *words):
    status, _, err = replay(capsys, bag, '--steps', '1', '--out', tmp_path / 'out', *words)
    assert status == 1
    assert not (tmp_path / 'out' / 'report.html').exists()
    return err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--gate', 'mae_h2<=1'), 'no such metric; did you mean mae_h'),
        (('--gate', 'mae_h1'), 'write metric<=value'),
        (('--steps', '4'), 'num_steps 4 is not in this bundle'),
        (('--precision', 'fp8'), "--precision fp8: bundle 'nano' holds"),
        (('--against', 'nano'), 'is asked for twice'),
        (('--noises', '0'), '--noises 0: one at least'),
        (('--every', '2', '--clock', 'real'), '--every is of the fast clock'),
        (('--latency-ms', '5'), '--latency-ms is of --clock real'),
        (('--latency-ms', '-5', '--clock', 'real'), '--latency-ms -5 is negative'),
        (('--urdf', 'a.urdf'), '--urdf FILE and --tip LINK go together'),
        (('--actions', 'chunk'), '--actions chunk: .* has none; it has command, joints'),
        (('--topic', 'base'), 'write ROLE=TOPIC'),
        (('--robot', 'franka'), 'metaworld'),
    ],
)
def test_what_cannot_be_asked(replay_bag, tmp_path, capsys, words, message):
    err = refused(capsys, tmp_path, replay_bag, *words)
    assert re.search(message, err), err
    assert not (tmp_path / 'out' / 'parts').exists()


def test_no_camera_topic_and_topics_of_other_names(tmp_path, capsys):
    none = Script().steps(4, skip=(BASE, WRIST)).write(tmp_path / 'none')
    assert "lacks 'base/image_raw' (base)" in refused(capsys, tmp_path, none)
    other = Script().steps(4, rename={BASE: '/cam0/color'}).write(tmp_path / 'other')
    err = refused(capsys, tmp_path, other)
    assert '/cam0/color  sensor_msgs/msg/Image  4 messages' in err
    assert '--topic base=/cam0/color' in err
    words = ('--steps', '1', '--topic', 'base=/cam0/color', '--out', tmp_path / 'out')
    assert replay(capsys, other, *words)[0] == 0


def test_bag_of_another_robot_and_an_empty_one(tmp_path, capsys):
    script = Script().steps(4, skip=(JOINTS,))
    for k in range(4):
        ns = BEGIN_NS + k * STEP_NS
        names = ('shoulder', 'elbow', 'wrist', 'gripper')
        script.add(JOINTS, STATES, ns, states(ns, position_at(k), names))
    bag = script.write(tmp_path / 'other')
    assert 'is of another robot than metaworld' in refused(capsys, tmp_path, bag)
    empty = Script().write(tmp_path / 'empty')
    assert 'is empty' in refused(capsys, tmp_path, empty)


def test_pictures_that_all_came_too_late_say_so(tmp_path, capsys):
    script = Script()
    for k in range(5):
        ns = BEGIN_NS + k * STEP_NS
        script.add(JOINTS, STATES, ns + NS, states(ns + NS, position_at(k)))
        for topic in (BASE, WRIST):
            script.add(topic, IMAGE, ns + NS, image(ns, k))
        script.add(COMMAND, TRAJECTORY, ns, trajectory(ns, position_at(0)))
    err = refused(capsys, tmp_path, script.write(tmp_path / 'late'))
    assert 'not one of 5 frame pairs became a chunk' in err
    assert 'newest frame is 1000 ms old (max_age_ms 250)' in err


def judged(capsys, tmp_path, bag):
    status, _, err = replay(capsys, bag, '--steps', '1', '--out', tmp_path / 'out')
    assert status == 0, err
    return json.loads((tmp_path / 'out' / 'report.json').read_text())


def test_odd_bags_are_judged_and_their_oddity_is_told(tmp_path, capsys):
    script = Script().steps(10)
    for k in range(10, 25):  # then the driver lists its joints the other way round
        ns = BEGIN_NS + k * STEP_NS
        names = ('gripper', 'hand_z', 'hand_y', 'hand_x')
        script.add(JOINTS, STATES, ns, states(ns, position_at(k)[::-1], names))
        script.add(BASE, IMAGE, ns, image(ns, k))
        script.add(BASE, IMAGE, ns + STEP_NS // 2, image(ns + STEP_NS // 2, k))
        script.add(WRIST, IMAGE, ns + STEP_NS // 2, image(ns + STEP_NS // 2, k))
    script.add('/rosout', TEXT, BEGIN_NS, make(TEXT, 'hello'))
    report = judged(capsys, tmp_path, script.write(tmp_path / 'odd'))
    notes = '\n'.join(report['notes'])
    assert 'the order of their joints 1 time' in notes
    assert '/rosout' in notes
    counts = report['settings'][0]['counts']
    assert counts['frames_dropped'] == 15  # the faster camera's
    assert counts['ticks'] == 25
    assert '/rosout' in (tmp_path / 'out' / 'report.html').read_text()


def test_time_that_jumps_refuses_what_the_node_would_refuse(tmp_path, capsys):
    script = Script().steps(10)
    for k in range(10, 30):  # the stamps are set back by five seconds, for ten pairs
        log_ns = BEGIN_NS + k * STEP_NS
        ns = log_ns - (5 * NS if k < 20 else 0)
        script.add(JOINTS, STATES, log_ns, states(ns, position_at(k)))
        script.add(BASE, IMAGE, log_ns, image(ns, k))
        script.add(WRIST, IMAGE, log_ns, image(ns, k))
    report = judged(capsys, tmp_path, script.write(tmp_path / 'jump'))
    assert 'stamps jump back 1 time' in '\n'.join(report['notes'])
    counts = report['settings'][0]['counts']
    # Four of each camera are backward, the fifth is a new beginning, and old: six pairs are stale.
    assert counts['frames_rejected'] == 8
    assert counts['refused_STALE_IMAGE'] == 6
    assert counts['ticks'] == 20


def test_cut_bag_is_judged_as_far_as_it_goes(tmp_path, capsys):
    bag = Script().steps(40).write(tmp_path / 'cut')
    cut(storage_file(bag), 0.6)
    report = judged(capsys, tmp_path, bag)
    assert 5 < report['settings'][0]['metrics']['frames'] < 40
    assert report['notes']


def test_full_disk_at_the_report_keeps_parts_and_the_old_report(
    whole_replay, replay_bag, tmp_path
):
    out = tmp_path / 'out'
    shutil.copytree(whole_replay, out)
    old = (out / 'report.html').read_text()
    limit = max(f.stat().st_size for f in out.glob('parts/*/*')) + 1
    assert limit < len(old)
    code = (
        'import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); '
        f'resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); '
        'from vla_trt_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
    )
    words = ['replay', str(replay_bag), '--steps', '1,3', '--resume', '--out', str(out)]
    done = subprocess.run(
        [sys.executable, '-c', code, *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert 'report.html cannot be written: File too large. The parts that are whole' in done.stderr
    assert (out / 'report.html').read_text() == old
    assert not list(out.rglob('*.draft'))
