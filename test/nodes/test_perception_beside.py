"""Policy and perception in one process: one subscription, the same frames, one end."""

import subprocess

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
pytest.importorskip('vision_msgs', reason='needs vision_msgs: pip install . brings it')
pytest.importorskip('onnx', reason='makes its networks with it')

from bright_bundles import bright_detector
from ros_system import Client, command, running
from vision_msgs.msg import Detection2DArray

from vla_trt_ros.messages import stamp_ns
from vla_trt_ros.msg import ActionChunk
from vla_trt_ros.nodes.publish import EVENT_QOS

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    return bright_detector(tmp_path_factory.mktemp('bundles') / 'bright', score_threshold=0.1)


def test_beside_the_policy_boxes_have_the_stamps_of_its_chunks(detector):
    """One process, one subscription: each picture that was looked at is one that a chunk is of."""
    words = command('compose', num_steps=10, detectors=detector, rates='base=10')
    words[3:3] = ['policy', 'perception']
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with running('pattern_node', width=160, height=120), Client() as client:
            chunks = client.hear(ActionChunk, 'action_chunk', EVENT_QOS)  # a client that keeps ten
            boxes = client.hear(Detection2DArray, 'perception/detections/base', EVENT_QOS)
            client.until(lambda: len(chunks) > 40 and len(boxes) > 20, 40, 'chunks and detections')
            readers = [
                info.node_name
                for info in client.node.get_subscriptions_info_by_topic('base/image_raw')
            ]
            used = {stamp_ns(m.observation_stamp) for m in tuple(chunks)}
            seen = {stamp_ns(m.header.stamp) for m in tuple(boxes)}
            seen = {stamp for stamp in seen if min(used) <= stamp <= max(used)}
        # The pattern stamps both cameras alike, so the oldest exposure is each one's.
        # The policy is slower than the cameras: half of the frames are of no chunk. A chunk that
        # this client missed, or a pair of two exposures, may cost a match.
        assert len(seen) >= 10
        assert len(seen & used) >= 0.8 * len(seen)
        assert readers.count('policy') == 1
        assert 'perception' not in readers
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_composed_nodes_all_end_where_one_cannot_start():
    """The policy's thread must not keep a process alive that has failed."""
    words = command('compose', num_steps=1, detectors='nope')
    words[3:3] = ['policy', 'perception']
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert 'bundles/nope does not exist' in done.stderr
