"""vla-trt doctor --live against test patterns over DDS, and against faults."""

import json

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_system import Client, running
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory

from vla_trt_ros.cli import live_checks
from vla_trt_ros.cli.main import main
from vla_trt_ros.config import load_robot
from vla_trt_ros.nodes.probe import TopicFacts
from vla_trt_ros.nodes.publish import COMMAND_QOS, EVENT_QOS, IMAGE_QOS, LATCHED_QOS, STATE_QOS

pytestmark = pytest.mark.ros
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture(scope='module', autouse=True)
def cameras():
    with running('pattern_node', width=320, height=240):
        yield


@pytest.fixture(scope='module')
def client():
    with Client() as made:
        made.until(lambda: made.node.get_publishers_info_by_topic('/joint_states'), 15)
        yield made


def live(capsys, *words, seconds=3):  # discovery takes a second on a busy machine
    """{name: [findings]} of what was heard."""
    main(['doctor', '--json', '--live', '--seconds', str(seconds), *words])
    found = {}
    for finding in json.loads(capsys.readouterr().out):
        found.setdefault(finding['name'], []).append(finding)
    return found


def test_all_arrives(client, capsys):
    found = live(capsys, seconds=3)
    for view in ('base', 'wrist'):
        (finding,) = found[f'camera {view}']
        words = finding['text'].split()
        ratio = float(words[words.index('%') - 1])
        # Near 100, but a busy machine may lose some of 90 frames; then doctor has to say so.
        assert 50 <= ratio <= 100, finding
        assert finding['status'] == ('ok' if ratio >= 99 else 'fail')
        assert 20 < float(words[0]) < 40
        assert finding['text'].endswith('320x240 rgb8')
    assert found['joint states'][0]['status'] == 'ok'
    assert found['joint names'][0]['status'] == 'ok'
    (controller,) = found['controller']
    assert controller['status'] == 'warn'
    assert 'nobody listens on /joint_trajectory_controller/joint_trajectory' in controller['text']
    assert 'estop' not in found


@pytest.mark.parametrize(
    ('lost', 'age_ms', 'publishers', 'status', 'remedy'),
    [
        (0, 5.0, 1, 'ok', ''),
        (1, 5.0, 1, 'ok', ''),
        (2, 5.0, 1, 'fail', 'image transport'),
        (2, 5.0, 2, 'ok', ''),  # several senders: their numbers say nothing
        (0, 1001.0, 1, 'fail', 'chrony'),
        (0, -51.0, 1, 'fail', 'ahead'),
        (0, -49.0, 1, 'ok', ''),
    ],
)
def test_judgement_of_what_arrives(lost, age_ms, publishers, status, remedy):
    seen = TopicFacts('/a', 'sensor_msgs/msg/Image', ('/x',) * publishers)
    seen.received, seen.lost, seen.newest_age_ms = 100, lost, age_ms
    seen.first, seen.last = 10.0, 13.3
    finding = live_checks._arrival('camera base', seen)
    assert (finding.status, remedy in finding.remedy) == (status, True)
    assert finding.text.startswith('30.0 Hz on /a')


@pytest.mark.parametrize(
    ('fault', 'name', 'text'),
    [
        ('silent', 'camera base', 'nothing came in 3 s from /pattern on /base/image_raw'),
        ('unknown_encoding', 'camera base', "encoding 'thermal7' has no row of its own"),
        ('joint_missing', 'joint names', 'hand_y, hand_z, gripper without hand_x'),
        ('joint_silent', 'joint states', 'nothing came in 3 s from /pattern on /joint_states'),
        ('backward', 'camera base', ' ms old'),
    ],
)
def test_fault_is_named(client, capsys, fault, name, text):
    assert client.set_parameter('pattern', 'fault', fault).successful
    try:
        found = live(capsys)
    finally:
        client.set_parameter('pattern', 'fault', 'none')
    finding = found[name][-1]
    assert finding['status'] == 'fail'
    assert text in finding['text']
    assert finding['remedy']


def test_other_namespace_is_silent_and_cameras_may_lie_elsewhere(client, capsys):
    found = live(capsys, '--namespace', 'left', '--cameras', 'wrist=/wrist/image_raw')
    assert found['camera base'][0]['text'] == 'nobody publishes /left/base/image_raw'
    assert found['camera base'][0]['status'] == 'fail'
    assert 'Hz on /wrist/image_raw' in found['camera wrist'][0]['text']


def test_second_publisher_reliable_images_and_other_types(client, capsys):
    reliable = client.node.create_publisher(Image, '/base/image_raw', EVENT_QOS)
    compressed = client.node.create_publisher(CompressedImage, '/wrist/image_raw', IMAGE_QOS)
    try:
        found = live(capsys)
    finally:
        client.node.destroy_publisher(reliable)
        client.node.destroy_publisher(compressed)
    arrival, several, slow = found['camera base']
    assert 'arrive' not in arrival['text']  # sequence numbers of two senders say nothing
    assert several['status'] == slow['status'] == 'warn'
    assert several['text'] == '2 publishers on /base/image_raw: /pattern, /test_client'
    assert 'is sent reliable' in slow['text']
    (wrist,) = found['camera wrist']
    assert wrist['status'] == 'fail'
    assert 'carries sensor_msgs/msg/CompressedImage' in wrist['text']


def test_joints_of_two_parts_that_publish_apart(client, capsys):
    gripper = client.node.create_publisher(JointState, '/joint_states', STATE_QOS)

    def publish():
        msg = JointState(name=['gripper'], position=[0.5])
        msg.header.stamp = client.node.get_clock().now().to_msg()
        gripper.publish(msg)

    timer = client.node.create_timer(0.02, publish)
    try:
        found = live(capsys)
    finally:
        client.node.destroy_timer(timer)
        client.node.destroy_publisher(gripper)
    assert found['joint states'][-1]['status'] == 'warn'
    # One of the two names all of them, which is enough for policy and gate.
    assert found['joint names'][0]['status'] == 'ok'


def test_joints_that_no_message_names_together():
    seen = TopicFacts('/joint_states', 'sensor_msgs/msg/JointState')
    seen.names = {('gripper',), ('hand_x', 'hand_y', 'hand_z', 'other')}
    finding = live_checks._joint_names(load_robot('metaworld'), seen)
    assert finding.status == 'fail'
    assert finding.text.endswith('hand_x, hand_y, hand_z, other without gripper')
    assert 'joint_state_publisher' in finding.remedy


@pytest.mark.parametrize('qos', [COMMAND_QOS, IMAGE_QOS], ids=['reliable', 'best-effort'])
def test_controller_that_listens(client, capsys, qos):
    topic = '/joint_trajectory_controller/joint_trajectory'
    controller = client.node.create_subscription(JointTrajectory, topic, print, qos)
    try:
        found = live(capsys)
    finally:
        client.node.destroy_subscription(controller)
    assert found['controller'][0]['status'] == 'ok', found['controller']
    assert found['controller'][0]['text'] == f'/test_client on {topic}'


def test_links_whose_qos_does_not_fit(client, capsys):
    node = client.node
    estop = node.create_publisher(Bool, '/estop', BEST_EFFORT)
    prompt = node.create_publisher(String, '/policy/prompt', EVENT_QOS)
    topic = '/joint_trajectory_controller/joint_trajectory'
    controller = node.create_subscription(JointTrajectory, topic, print, LATCHED_QOS)
    try:
        found = live(capsys)
    finally:
        node.destroy_publisher(estop)
        node.destroy_publisher(prompt)
        node.destroy_subscription(controller)
    assert found['estop'][0]['status'] == 'fail'
    assert 'QoS mismatch on /estop: /test_client: ' in found['estop'][0]['text']
    assert 'est effort' in found['estop'][0]['text']
    assert found['prompt'][0]['status'] == 'ok'
    assert found['controller'][0]['status'] == 'fail'
    assert 'transient local' in found['controller'][0]['text'].lower()
    assert 'deadline' not in found['controller'][0]['text']
