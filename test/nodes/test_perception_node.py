"""The perception node as a process, its cameras in another, over DDS; and beside the policy."""

import subprocess
import time
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
pytest.importorskip('vision_msgs', reason='needs vision_msgs: pip install . brings it')
pytest.importorskip('onnx', reason='makes its networks with it')

from bright_bundles import bright_classifier, bright_detector
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from ros_system import Client, command, running
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification, Detection2DArray, LabelInfo

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.messages import frame_from_image, stamp_ns
from vla_trt_ros.msg import PerceptionTiming
from vla_trt_ros.nodes.publish import (
    EVENT_QOS,
    IMAGE_QOS,
    LATCHED_QOS,
    TELEMETRY_QOS,
)

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bundles')
    return SimpleNamespace(
        detector=bright_detector(folder / 'bright', score_threshold=0.1),
        classifier=bright_classifier(folder / 'light-or-dark'),
    )


@pytest.fixture(scope='module')
def cameras():
    with running('pattern_node', width=160, height=120):
        yield


@pytest.fixture(scope='module')
def client(cameras, bundles):
    parameters = {
        'detectors': bundles.detector,
        'classifiers': bundles.classifier,
        'rates': 'base=10,wrist=/6',
    }
    with running('perception_node', **parameters), Client() as made:
        made.base = made.hear(Detection2DArray, 'perception/detections/base', EVENT_QOS)
        made.wrist = made.hear(Detection2DArray, 'perception/detections/wrist', EVENT_QOS)
        topic = 'perception/classifications/base/light_or_dark'
        made.classes = made.hear(Classification, topic, EVENT_QOS)
        made.timing = made.hear(PerceptionTiming, 'perception/timing', TELEMETRY_QOS)
        made.until(lambda: made.base and made.wrist, 30, 'detections of both cameras')
        yield made


def test_boxes_carry_the_image_s_header_and_its_pixels(client):
    images = client.hear(Image, 'base/image_raw', IMAGE_QOS)
    client.until(lambda: images, what='an image')
    message = client.next(client.base)
    stamps = {stamp_ns(m.header.stamp) for m in tuple(images)}
    client.until(
        lambda: (
            stamp_ns(client.base[-1].header.stamp)
            in {stamp_ns(m.header.stamp) for m in tuple(images)}
        ),
        what=f'detections with a stamp of {len(stamps)} images',
    )
    assert message.header.frame_id == 'camera_optical_frame'
    person = message.detections[0]
    assert person.header == message.header
    assert person.id == ''
    first, *others = (r.hypothesis for r in person.results)
    assert first.class_id == 'person'
    assert 0.1 < first.score <= 1.0
    assert [h.class_id for h in others] in (['light'], ['dark'])
    # 160 x 120 in a square of 32: one network pixel is 5, and 4 rows stand above the picture.
    assert person.bbox.center.position.x == pytest.approx(80)
    assert person.bbox.size_x == pytest.approx(80)
    assert person.bbox.center.position.y == pytest.approx(40)
    assert person.bbox.size_y == pytest.approx(80)


def test_labels_are_latched(client):
    info = client.hear(LabelInfo, 'perception/label_info', LATCHED_QOS)
    client.until(lambda: info, what='label_info')
    known = ['person', 'cup', 'dark', 'light']
    assert [(c.class_id, c.class_name) for c in info[-1].class_map] == list(enumerate(known))
    assert info[-1].threshold == pytest.approx(0.1)
    info = client.hear(LabelInfo, 'perception/label_info/light_or_dark', LATCHED_QOS)
    client.until(lambda: info, what='label_info of the classifier')
    assert [c.class_name for c in info[-1].class_map] == ['dark', 'light']


def test_classification_ranks_all_labels_of_the_best_box(client):
    results = client.next(client.classes).results
    assert {r.class_id for r in results} == {'dark', 'light'}
    assert results[0].score >= results[1].score
    assert results[0].score + results[1].score == pytest.approx(1.0)


def test_each_camera_has_its_rate(client):
    client.base.clear()
    client.wrist.clear()
    time.sleep(2.0)
    # 30 frames a second: base ten times, wrist on every sixth.
    assert 14 <= len(client.base) <= 22
    assert 6 <= len(client.wrist) <= 12


def test_timing_adds_up(client):
    client.until(lambda: any(t.camera == 'base' for t in tuple(client.timing)))
    timing = next(t for t in reversed(client.timing) if t.camera == 'base')
    assert (timing.width, timing.height) == (160, 120)
    assert timing.detect_ms > 0
    assert timing.end_to_end_ms > timing.image_age_ms > 0
    assert timing.crops == 1
    assert timing.looks > 0
    assert timing.uploads == 0


def test_annotated_picture_only_while_somebody_looks(client):
    topic = 'perception/annotated/base'
    assert client.node.count_publishers(topic) == 1
    pictures = client.hear(Image, topic, IMAGE_QOS)
    client.until(lambda: pictures, what='an annotated picture')
    page = to_rgb(frame_from_image(pictures[-1], 0))
    # The grey ramp has no saturated colour, the frame of a box has.
    assert (page.max(axis=2).astype(int) - page.min(axis=2)).max() > 100
    stamps = [stamp_ns(m.header.stamp) for m in tuple(client.base)]
    assert stamp_ns(pictures[-1].header.stamp) in stamps


def test_camera_that_stops_is_silent_and_told_and_the_other_one_goes_on(client):
    diagnostics = client.hear(DiagnosticArray, '/diagnostics', EVENT_QOS)

    def told(view):
        parts = [s for m in tuple(diagnostics)[-3:] for s in m.status]
        return [s for s in parts if s.name == f'perception: camera {view}']

    client.set_parameter('pattern', 'fault', 'silent')
    try:
        client.until(lambda: client.silent(client.base, 0.5), what='no more detections')
        assert client.next(client.wrist)
        client.until(
            lambda: any('nothing seen' in s.message for s in told('base')), what='a diagnostic'
        )
        assert told('wrist')[-1].message == 'looking'
    finally:
        client.set_parameter('pattern', 'fault', 'none')
    assert client.next(client.base)


@pytest.mark.parametrize('fault', ['truncated', 'zero_size', 'unknown_encoding'])
def test_broken_pictures_stop_nothing(client, fault):
    client.set_parameter('pattern', 'fault', fault)
    try:
        client.until(lambda: client.silent(client.base, 0.4), what='no detections')
        assert client.next(client.wrist)
    finally:
        client.set_parameter('pattern', 'fault', 'none')
    assert client.next(client.base)


def change_state(client, transition: int) -> bool:
    request = ChangeState.Request()
    request.transition.id = transition
    return client.call(ChangeState, 'perception/change_state', request).success


def test_lifecycle_through_its_service(client):
    configure, cleanup, activate, deactivate = 1, 2, 3, 4
    assert change_state(client, deactivate)
    assert client.silent(client.base, 0.4)
    assert change_state(client, cleanup)
    assert change_state(client, configure)
    assert client.silent(client.base, 0.4)
    assert change_state(client, activate)
    assert client.next(client.base)


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({'detectors': 'nope'}, 'bundles/nope does not exist'),
        ({'rates': 'top=5'}, "no camera 'top'"),
        ({'classifiers': 'nano'}, "bundle 'nano' holds a pi05, not a classifier"),
    ],
)
def test_what_cannot_work_is_told_at_the_start(bundles, parameters, message):
    words = command('perception_node', **{'detectors': bundles.detector, **parameters})
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert message in done.stderr
