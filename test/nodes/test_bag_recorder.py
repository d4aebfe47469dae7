"""`vla-trt record` as a process: topics in, a bag out, however it ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")

from bag_files import BASE, JOINTS, ROBOT, WRIST
from rosbags.rosbag2 import Reader

from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.cli.main import main
from vla_trt_ros.datatypes import NS

pytestmark = pytest.mark.ros
RATE = 100.0


@pytest.fixture(scope='module')
def pattern():
    """Two small cameras and joint states, from a process of their own."""
    words = [sys.executable, '-m', 'vla_trt_ros.nodes.pattern_node', '--ros-args']
    words += ['-p', 'width:=96', '-p', 'height:=72', '-p', f'joint_rate:={RATE}']
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield process
    process.terminate()
    process.wait(20)


def recorder(out, *words):
    command = [sys.executable, '-m', 'vla_trt_ros.cli.main', 'record', '--out', str(out), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_bytes(out, size=200_000):
    """Until so much reached the disk: the recorder runs."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if sum(p.stat().st_size for p in out.glob('*.mcap')) > size:
            return
        time.sleep(0.05)
    raise AssertionError(f'nothing comes into {out}')


def test_sigterm_ends_a_whole_bag(tmp_path, pattern):
    process = recorder(tmp_path / 'bag')
    wait_for_bytes(tmp_path / 'bag')
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    bag = open_bag([tmp_path / 'bag'], ROBOT)
    counts = {}
    for event in bag.events():
        counts[event.name] = counts.get(event.name, 0) + 1
    assert set(counts) == {'base', 'wrist', 'joints'}
    assert bag.notes() == []
    assert f'{sum(counts.values())} messages' in said
    assert 'no message on /joint_trajectory_controller' in said
    with Reader(tmp_path / 'bag') as reader:  # rosbags needs an index
        assert reader.message_count == sum(counts.values())


def test_a_kill_costs_a_second_at_most(tmp_path, pattern):
    process = recorder(tmp_path / 'bag')
    wait_for_bytes(tmp_path / 'bag')
    killed_ns = time.time_ns()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    bag = open_bag([tmp_path / 'bag'], ROBOT)
    last = {e.name: e.payload.stamp_ns for e in bag.events()}
    assert set(last) == {'base', 'wrist', 'joints'}
    assert killed_ns - min(last.values()) < NS
    assert 'has no end' in '\n'.join(bag.notes())


def test_a_full_disk_is_said_and_the_bag_is_whole(tmp_path, pattern):
    code = (
        'import resource, sys; from vla_trt_ros.cli.main import main\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (4_500_000, -1))\n'
        f'sys.exit(main(["record", "--out", {str(tmp_path / "bag")!r}, "--duration", "60"]))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1, done.stderr
    assert 'File too large' in done.stderr
    assert 'Traceback' not in done.stderr
    bag = open_bag([tmp_path / 'bag'], ROBOT)
    assert len(list(bag.events('joints'))) > 100
    assert bag.notes() == []


def test_only_the_topics_of_a_list_until_ctrl_c(tmp_path, pattern):
    (tmp_path / 'list.yaml').write_text(f'[{JOINTS}]')
    process = recorder(tmp_path / 'bag', '--topics', str(tmp_path / 'list.yaml'))
    wait_for_bytes(tmp_path / 'bag', 3000)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    with Reader(tmp_path / 'bag') as reader:
        assert {c.topic for c in reader.connections} == {f'/{JOINTS}'}
        assert reader.message_count > 10


def test_nothing_to_record_for_a_while(tmp_path):
    (tmp_path / 'list.yaml').write_text('[never_published]')
    process = recorder(
        tmp_path / 'bag', '--topics', str(tmp_path / 'list.yaml'), '--duration', '1'
    )
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert 'no message on /never_published' in said


@pytest.mark.parametrize(
    ('words', 'complaint'),
    [
        ([], '--out DIR says where the bag goes'),
        (
            ['--out', 'x', '--duration', '-1'],
            '--duration -1 and --split-size 0 must not be negative',
        ),
        (['--topics', 'gone.yaml'], 'gone.yaml cannot be read as a list of topics'),
        (['--out', '.'], 'exists: a recording goes into a new folder'),
    ],
)
def test_words_that_cannot_be(words, complaint, capsys):
    assert main(['record', *words]) == 1
    assert complaint in capsys.readouterr().err


def test_the_line_for_ros2_bag(capsys):
    assert main(['record', '--robot', 'metaworld', '--print']) == 0
    said = capsys.readouterr().out
    assert said.startswith(f'ros2 bag record --storage mcap --topics {BASE} {WRIST} {JOINTS} ')
