"""Motion that depends on detections: a person comes into view, a perception node dies."""

import signal
import subprocess
import time

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
pytest.importorskip('vision_msgs', reason='needs vision_msgs: pip install . brings it')
pytest.importorskip('onnx', reason='makes its networks with it')

from bright_bundles import bright_detector
from ros_system import Client, command, running
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
)

from vla_trt_ros.datatypes import Reason, State
from vla_trt_ros.msg import PolicyStatus
from vla_trt_ros.nodes.publish import EVENT_QOS, LATCHED_QOS, time_msg

pytestmark = pytest.mark.ros
PERIOD = 0.05  # seconds between the detections of `Eyes`


@pytest.fixture(scope='module', autouse=True)
def policy():
    """Cameras, joint states and chunks; the command node that they are for is each test's own."""
    with (
        running('pattern_node', width=64, height=64),
        running('policy_node', num_steps=1, prompt='reach the goal'),
    ):
        yield


class Eyes(Client):
    """A perception node whose view the test decides."""

    def __init__(self) -> None:
        super().__init__()
        self.status = self.hear(PolicyStatus, 'command/status', LATCHED_QOS)
        self.view: list[tuple[str, float]] | None = []
        self.shown_at = 0.0
        self._told: list[tuple[str, float]] | None = None
        create = self.node.create_publisher
        self._detections = [
            create(Detection2DArray, f'perception/detections/{view}', EVENT_QOS)
            for view in ('base', 'wrist')
        ]

    def look(self) -> None:
        self.node.create_timer(PERIOD, self._tell)

    def _tell(self) -> None:
        if self.view is None:
            return
        msg = Detection2DArray()
        msg.header.stamp = time_msg(self.node.get_clock().now().nanoseconds)
        for label, score in self.view:
            result = ObjectHypothesisWithPose()
            result.hypothesis = ObjectHypothesis(class_id=label, score=score)
            msg.detections.append(Detection2D(results=[result]))
        if self.view != self._told:
            self._told, self.shown_at = self.view, time.monotonic()
        for publisher in self._detections:
            publisher.publish(msg)

    def until_status(self, state: State, reason: Reason, timeout: float = 20.0) -> float:
        """When it was heard, monotonic seconds."""
        self.until(
            lambda: (
                self.status and (self.status[-1].state, self.status[-1].reason) == (state, reason)
            ),
            timeout,
            f'{state.name}, {reason.name}; it is {self.status[-1] if self.status else None}',
        )
        return time.monotonic()


def test_person_in_view_holds_at_once_and_another_label_slows():
    parameters = {'hold_on_labels': 'person', 'slow_on_labels': 'dog', 'watch_clear': 0.5}
    with running('command_node', **parameters), Eyes() as eyes:
        eyes.until_status(State.WAITING, Reason.STALE_DETECTIONS)
        assert 'is the perception node running?' in eyes.status[-1].text
        eyes.look()
        eyes.until_status(State.RUNNING, Reason.NONE)
        eyes.view = [('person', 0.9)]
        held = eyes.until_status(State.HOLDING, Reason.PERCEPTION_HOLD)
        # One period of the detections, and what a busy machine needs on top.
        assert held - eyes.shown_at < PERIOD + 0.2
        assert 'person in view of camera' in eyes.status[-1].text
        eyes.view = [('person', 0.4), ('dog', 0.9)]
        eyes.until_status(State.RUNNING, Reason.PERCEPTION_SLOW)
        eyes.view = []
        eyes.until_status(State.RUNNING, Reason.NONE)


def test_perception_node_that_dies_holds_the_arm(tmp_path):
    """Its networks see a person with a score of a half, and a cup with a quarter."""
    detector = bright_detector(tmp_path / 'bright', score_threshold=0.1)
    words = command('perception_node', detectors=detector, rates='all=10')
    perception = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parameters = {'hold_on_labels': 'cup', 'max_detection_age_ms': 600.0}
    try:
        with running('command_node', **parameters), Eyes() as eyes:
            eyes.until_status(State.RUNNING, Reason.NONE)
            perception.send_signal(signal.SIGKILL)
            died = time.monotonic()
            held = eyes.until_status(State.HOLDING, Reason.STALE_DETECTIONS)
            assert held - died < 1.2
            # As any input that is lost: a hold that lasts becomes a stop.
            eyes.until_status(State.STOPPED, Reason.STALE_DETECTIONS)
    finally:
        perception.kill()
        perception.wait()


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({'watch_cameras': 'top'}, "no camera 'top'; there are base, wrist"),
        ({'watch_cameras': 'base=9:9:1:1'}, 'region 9:9:1:1 is empty'),
        ({'max_detection_age_ms': 0.0}, 'max_detection_age_ms 0.0 must be above 0'),
    ],
)
def test_watch_that_cannot_work_is_told_at_the_start(parameters, message):
    words = command('command_node', hold_on_labels='person', **parameters)
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert message in done.stderr
