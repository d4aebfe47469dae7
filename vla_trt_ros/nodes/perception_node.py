"""Detectors and classifiers on the frames that the policy sees; vision_msgs out.

A lifecycle node. In one process with the policy node it reads that node's camera slots; on its
own it subscribes to the cameras itself.
"""

from __future__ import annotations

import sys
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification, Detection2DArray, LabelInfo

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.camera.latest import LatestFrames
from vla_trt_ros.config import RobotConfig, load_robot
from vla_trt_ros.datatypes import CameraFrame
from vla_trt_ros.errors import VlaError
from vla_trt_ros.msg import PerceptionTiming
from vla_trt_ros.nodes.camera_inputs import CameraInputs
from vla_trt_ros.nodes.params import Param, declare
from vla_trt_ros.nodes.perception_thread import PerceptionThread
from vla_trt_ros.nodes.publish import (
    EVENT_QOS,
    IMAGE_QOS,
    LATCHED_QOS,
    TELEMETRY_QOS,
    diagnostic,
    diagnostics_msg,
)
from vla_trt_ros.nodes.publish_perception import (
    boxes_of,
    classification_msg,
    detections_msg,
    label_info_msg,
    picture_msg,
    timing_msg,
)
from vla_trt_ros.nodes.run import autostart, run_node
from vla_trt_ros.nodes.shared_frames import SharedFrames
from vla_trt_ros.perception.choice import load_perception, turns_of
from vla_trt_ros.perception.scene import Perception, Scene
from vla_trt_ros.viz.boxes import draw_boxes

PARAMS = (
    Param('robot', 'metaworld', 'robot file, a name in config/robots or a path'),
    Param('platform', 'cpu', 'platform file, a name in config/platforms or a path'),
    Param('cameras', '', "topics in place of the robot file's, as base=/a/image,wrist=/b/image"),
    Param(
        'detectors', 'sim', 'files of config/detectors, bundles or paths of them, comma-separated'
    ),
    Param('classifiers', '', 'bundles or paths of them; a detector file may bring its own'),
    Param(
        'rates',
        'all=5',
        'looks per second of each camera: all=5, or base=5,wrist=/3 for each third frame of wrist',
    ),
    Param('score_threshold', 0.0, "least score of a box; 0: the bundle's own", bounds=(0.0, 1.0)),
    Param('max_detections', 100, 'boxes of one picture at most, the best ones'),
    Param(
        'after_chunk',
        False,
        "begin a look between two of the policy's ticks, not beside one; the policy feels it less,"
        ' detections come later by a tick',
    ),
    Param('autostart', True, 'configure and activate at start, without a lifecycle manager'),
)


class PerceptionNode(LifecycleNode):
    """Plumbing around a `Perception` and its `PerceptionThread`.

    ``shared``: the camera slots of the policy node in this process, where there is one.
    """

    def __init__(self, shared: SharedFrames | None = None) -> None:
        super().__init__('perception')
        self.params = declare(self, PARAMS)
        self._shared = shared
        self._perception: Perception | None = None
        self._thread: PerceptionThread | None = None
        self._cameras: CameraInputs | None = None
        self._robot: RobotConfig | None = None
        self._publish_ms = 0.0
        self._active = False
        self._undo: list = []
        if self.params['autostart']:
            autostart(self)

    # Lifecycle ---------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load everything; FAILURE, with the reason in the log, where anything does not fit."""
        begin = time.monotonic()
        p = self.params
        try:
            self._robot = load_robot(p['robot']).with_camera_topics(p['cameras'])
            turns = turns_of(p['rates'], self._robot.cameras)
            self._perception = load_perception(
                p['detectors'],
                p['classifiers'],
                p['platform'],
                score_threshold=p['score_threshold'] or None,
                max_detections=p['max_detections'],
            )
        except VlaError as error:
            self.get_logger().fatal(str(error))
            return TransitionCallbackReturn.FAILURE
        cameras = {view: self._robot.cameras[view] for view in turns}
        if self._shared is None:
            self._cameras = CameraInputs(self, cameras)
        budgets = {view: camera.max_age_ms for view, camera in cameras.items()}
        self._thread = PerceptionThread(
            self._perception,
            self._frames,
            turns,
            budgets,
            self._now_ns,
            self._publish_scene,
            self._on_fault,
            after_chunk=p['after_chunk'],
        )
        self._connect(tuple(cameras))
        names = [*(d.name for d in self._perception.detectors)]
        names += [c.name for c in self._perception.classifiers]
        self.get_logger().info(
            f'{", ".join(names)} loaded and warm in {time.monotonic() - begin:.1f} s, '
            + ('frames of the policy node' if self._shared else 'own subscriptions')
        )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to look."""
        result = super().on_activate(state)
        self._active = True
        self._thread.start()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Look away; a gate that depends on detections holds."""
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give engines, subscriptions and publishers back."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The same from any state."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Stop the thread before its publishers go."""
        self._release()
        super().destroy_node()

    def _frames(self) -> LatestFrames | None:
        return self._cameras.frames if self._cameras is not None else self._shared.frames

    def _connect(self, views: tuple[str, ...]) -> None:
        lifecycle, plain = self.create_lifecycle_publisher, self.create_publisher
        classifiers = [c.name for c in self._perception.classifiers]
        self._detections = {
            v: lifecycle(Detection2DArray, f'~/detections/{v}', EVENT_QOS) for v in views
        }
        self._classes = {
            (v, c): lifecycle(Classification, f'~/classifications/{v}/{_token(c)}', EVENT_QOS)
            for v in views
            for c in classifiers
        }
        self._timing = lifecycle(PerceptionTiming, '~/timing', TELEMETRY_QOS)
        self._annotated = {v: plain(Image, f'~/annotated/{v}', IMAGE_QOS) for v in views}
        self._diagnostics = plain(DiagnosticArray, '/diagnostics', EVENT_QOS)
        infos = self._publish_labels()
        living = [*self._detections.values(), *self._classes.values(), self._timing]
        others = [*self._annotated.values(), self._diagnostics, *infos]
        timer = self.create_timer(1.0, self._every_second)
        self._undo = [
            *((self.destroy_lifecycle_publisher, p) for p in living),
            *((self.destroy_publisher, p) for p in others),
            (self.destroy_timer, timer),
        ]

    def _publish_labels(self) -> list:
        """Latched: what a class_id of detections can be, and what one of each classifier can."""
        threshold = self.params['score_threshold'] or min(
            d.config.score_threshold for d in self._perception.detectors
        )
        classifiers = self._perception.classifiers
        every = (*self._perception.labels, *(label for c in classifiers for label in c.labels))
        rows = [('~/label_info', tuple(dict.fromkeys(every)), threshold)]
        rows += [(f'~/label_info/{_token(c.name)}', c.labels, 0.0) for c in classifiers]
        publishers = []
        for topic, labels, least in rows:
            publisher = self.create_publisher(LabelInfo, topic, LATCHED_QOS)
            publisher.publish(label_info_msg(self._now_ns(), labels, least))
            publishers.append(publisher)
        return publishers

    def _halt(self) -> None:
        self._active = False
        if self._thread is not None:
            self._thread.stop()

    def _release(self) -> None:
        self._halt()
        for destroy, thing in reversed(self._undo):
            destroy(thing)
        self._undo = []
        if self._cameras is not None:
            self._cameras.close()
        if self._perception is not None:
            self._perception.close()
        self._perception = self._thread = self._cameras = None

    # Outputs, in the perception thread ---------------------------------------------------------

    def _publish_scene(self, scene: Scene, frame: CameraFrame, begin_ns: int) -> None:
        begin = time.perf_counter()
        self._detections[scene.view].publish(detections_msg(scene))
        publish_ns = self._now_ns()
        for classifier in self._perception.classifiers:
            msg = classification_msg(scene, classifier.name)
            self._classes[scene.view, classifier.name].publish(msg)
        counters = self._thread.counters[scene.view]
        late = (publish_ns - scene.stamp_ns) / 1e6 > self._robot.cameras[scene.view].max_age_ms
        counters.add('late', int(late))
        publish_ms, self._publish_ms = self._publish_ms, (time.perf_counter() - begin) * 1e3
        self._timing.publish(
            timing_msg(
                scene,
                begin_ns=begin_ns,
                publish_ns=publish_ns,
                publish_ms=publish_ms,
                looks=counters['looks'],
                turns_skipped=counters['skipped'],
                frames_rejected=counters['rejected'],
                late=counters['late'],
            )
        )
        if self._annotated[scene.view].get_subscription_count():
            picture = draw_boxes(to_rgb(frame), boxes_of(scene))
            self._annotated[scene.view].publish(picture_msg(scene, picture))

    def _on_fault(self, view: str, text: str) -> None:
        self.get_logger().warning(f'camera {view}: {text}', throttle_duration_sec=5.0)

    def _every_second(self) -> None:
        if self._thread is None:
            return
        now_ns, parts = self._now_ns(), []
        for view, counters in self._thread.counters.items():
            last_ns = self._thread.last_ns.get(view)
            age_ms = (now_ns - last_ns) / 1e6 if last_ns is not None else float('nan')
            fresh = self._active and last_ns is not None and age_ms < 1e3
            parts.append(
                diagnostic(
                    f'{self.get_name()}: camera {view}',
                    DiagnosticStatus.OK if fresh else DiagnosticStatus.WARN,
                    'looking' if fresh else 'nothing seen for a second',
                    self._robot.cameras[view].topic,
                    {'age (ms)': age_ms, **counters.counts},
                )
            )
        self._diagnostics.publish(diagnostics_msg(now_ns, *parts))

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def _token(name: str) -> str:
    """A name of a bundle as a part of a topic."""
    return ''.join(c if c.isalnum() else '_' for c in name)


def main(args: list[str] | None = None) -> int:
    """Entry point of lib/vla_trt_ros/perception_node."""
    return run_node(PerceptionNode, args)


if __name__ == '__main__':
    sys.exit(main())
