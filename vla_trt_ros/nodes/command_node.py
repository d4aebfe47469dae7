"""Action chunks and joint states in; limited commands and a status out. The arithmetic and all
decisions are `CommandGate`'s; docs/safety.md says what it does and what it does not protect from.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from vla_trt_ros.actions.gate import CommandGate
from vla_trt_ros.actions.status import GateStatus
from vla_trt_ros.actions.watch import Watch, WatchConfig, cameras_of
from vla_trt_ros.config import RobotConfig, load_robot
from vla_trt_ros.datatypes import CommandKind, State
from vla_trt_ros.errors import BadAction, BadDetections, BadState
from vla_trt_ros.messages import boxes_from_msg, chunk_from_msg, joints_from_msg
from vla_trt_ros.msg import ActionChunk, PolicyStatus
from vla_trt_ros.nodes.params import Param, declare
from vla_trt_ros.nodes.publish import (
    COMMAND_QOS,
    EVENT_QOS,
    LATCHED_QOS,
    STATE_QOS,
    diagnostic,
    diagnostics_msg,
    status_to_msg,
)
from vla_trt_ros.nodes.publish_command import position_to_msg, trajectory_to_msg
from vla_trt_ros.nodes.run import run_node

PARAMS = (
    Param('robot', 'metaworld', 'robot file, a name in config/robots or a path'),
    Param('dry_run', True, 'compute everything and send nothing to the controller'),
    Param(
        'controller',
        '',
        'kind of controller; empty: as the robot file says',
        choices=('', 'trajectory', 'position'),
    ),
    Param('enabled', True, 'start enabled; false waits for ~/enable'),
    Param('hold_on_labels', '', 'labels of detections at which the arm holds, comma-separated'),
    Param('slow_on_labels', '', 'labels at which it moves at slow_factor of its speed limits'),
    Param(
        'watch_cameras',
        '',
        'cameras that must deliver detections then, maybe each with a region in pixels, as '
        'base=left:upper:right:lower,wrist; empty: all',
    ),
    Param('watch_score', 0.5, 'least score of a label that counts', bounds=(0.0, 1.0)),
    Param('watch_clear', 1.0, 'seconds without the label until it counts as gone'),
    Param('max_detection_age_ms', 500.0, 'since the exposure of what was looked at last'),
    Param('slow_factor', 0.25, 'share of the speed limits', bounds=(0.01, 1.0)),
)
DETECTIONS = 'perception/detections'
LABELS = 'perception/label_info'
_RATE_WINDOW = 2.0  # seconds
_LAST_WORDS = Duration(seconds=0.5)  # for the brake to reach the controller
_LEVELS = {State.RUNNING: DiagnosticStatus.OK, State.WAITING: DiagnosticStatus.OK}
_LATCHED = (State.STOPPED, State.ESTOPPED)


class CommandNode(Node):
    """Plumbing around a `CommandGate`. ConfigError: a robot file or controller that is wrong."""

    def __init__(self) -> None:
        super().__init__('command')
        params = declare(self, PARAMS)
        robot = load_robot(params['robot'])
        controller = robot.controller.of_kind(params['controller'])
        kind = CommandKind(controller.kind)
        self.gate = CommandGate(
            robot,
            kind=kind,
            dry_run=params['dry_run'],
            enabled=params['enabled'],
            watch=watch_of(params, robot),
        )
        self._chunk_times: deque[float] = deque()
        self._told: GateStatus | None = None
        if kind is CommandKind.TRAJECTORY:
            message, self._to_msg = JointTrajectory, trajectory_to_msg
        else:
            message, self._to_msg = Float64MultiArray, position_to_msg
        self._controller = self.create_publisher(message, controller.topic, COMMAND_QOS)
        self._status = self.create_publisher(PolicyStatus, '~/status', LATCHED_QOS)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', EVENT_QOS)
        self.create_subscription(ActionChunk, 'action_chunk', self._on_chunk, COMMAND_QOS)
        self.create_subscription(JointState, robot.joint_states_topic, self._on_joints, STATE_QOS)
        self.create_subscription(Bool, 'estop', self._on_estop, EVENT_QOS)
        if self.gate.watch is not None:
            self._watch(self.gate.watch)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(Trigger, '~/estop_reset', self._on_estop_reset)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_timer(1.0 / robot.control_rate, self._tick)
        self.create_timer(1.0, self._report)
        self._controller_name = f'{controller.kind} on {self._controller.topic_name}'
        self.get_logger().info(
            f'robot {robot.name}, {self._controller_name}'
            + (', dry_run: nothing is sent' if params['dry_run'] else '')
        )
        self._tick()

    def destroy_node(self) -> None:
        """Brake first: the arm must not finish the chunk of a gate that is gone."""
        self.gate.enable(False, self._now_ns())
        self._tick()
        self._controller.wait_for_all_acked(_LAST_WORDS)
        super().destroy_node()

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _on_chunk(self, msg: ActionChunk) -> None:
        try:
            self.gate.offer_chunk(chunk_from_msg(msg), self._now_ns())
        except BadAction as error:
            self.gate.refuse_chunk(error, self._now_ns())
        self._chunk_times.append(time.monotonic())
        self._tick()

    def _on_joints(self, msg: JointState) -> None:
        now_ns = self._now_ns()
        try:
            self.gate.offer_joints(joints_from_msg(msg, now_ns), now_ns)
        except BadState as error:
            self.gate.refuse_joints(error, now_ns)

    def _watch(self, watch: Watch) -> None:
        from vision_msgs.msg import Detection2DArray, LabelInfo  # needed for a watch alone

        for camera in watch.config.cameras:
            topic = f'{DETECTIONS}/{camera}'
            callback = partial(self._on_detections, camera)
            self.create_subscription(Detection2DArray, topic, callback, EVENT_QOS)
        self.create_subscription(
            LabelInfo,
            LABELS,
            lambda msg: watch.offer_labels(c.class_name for c in msg.class_map),
            LATCHED_QOS,
        )
        rule = watch.config
        self.get_logger().info(
            f'holds on {", ".join(rule.hold_on) or "nothing"}, slow on '
            f'{", ".join(rule.slow_on) or "nothing"} of cameras {", ".join(rule.cameras)}'
        )

    def _on_detections(self, camera: str, msg: Any) -> None:
        now_ns = self._now_ns()
        try:
            stamp_ns, boxes = boxes_from_msg(msg)
        except BadDetections as error:
            self.gate.refuse_detections(now_ns)
            self.get_logger().warning(f'camera {camera}: {error}', throttle_duration_sec=5.0)
        else:
            self.gate.offer_detections(camera, stamp_ns, boxes, now_ns)
        self._tick()

    def _on_estop(self, msg: Bool) -> None:
        self.gate.estop(msg.data, self._now_ns())
        self._tick()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self.gate.reset(self._now_ns())
        self._tick()
        return response

    def _on_estop_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self.gate.reset_estop(self._now_ns())
        self._tick()
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success, response.message = self.gate.enable(request.data, self._now_ns())
        self._tick()
        return response

    def _tick(self) -> None:
        command, status = self.gate.tick(self._now_ns())
        if command is not None:
            self._controller.publish(self._to_msg(command))
        told = self._told
        if told is None or (status.state, status.reason) != (told.state, told.reason):
            self._told = status
            self._publish_status(status)
            line = f'{status.state.name}' + (f': {status.text}' if status.text else '')
            log = self.get_logger()
            # One call site each: rclpy remembers the level of a line of code.
            if status.state in (State.HOLDING, *_LATCHED):
                log.warning(line)
            else:
                log.info(line)

    def _report(self) -> None:
        status = self.gate.status()
        self._publish_status(status)
        values = {
            'controller': self._controller_name,
            'dry_run': status.dry_run,
            'rate (Hz)': self._rate_hz(),
            'rows left': status.rows_left,
            **{f'clamped {name}': n for name, n in status.clamped.items()},
            **status.counts,
        }
        level = DiagnosticStatus.ERROR if status.state in _LATCHED else DiagnosticStatus.WARN
        part = diagnostic(
            f'{self.get_name()}: gate',
            _LEVELS.get(status.state, level),
            status.text or status.state.name.lower(),
            self.gate.robot.name,
            values,
        )
        self._diagnostics.publish(diagnostics_msg(self._now_ns(), part))

    def _publish_status(self, status: GateStatus) -> None:
        self._status.publish(
            status_to_msg(
                self._now_ns(),
                'command',
                status.state,
                status.reason,
                status.text,
                rate_hz=self._rate_hz(),
                dry_run=status.dry_run,
                estop_latched=status.estop_latched,
                queue_depth=status.rows_left,
                chunks=status.chunks,
                clamped=sum(status.clamped.values()),
                rejected=status.rejected,
                clamped_names=list(status.clamped),
                clamped_counts=list(status.clamped.values()),
            )
        )

    def _rate_hz(self) -> float:
        since = time.monotonic() - _RATE_WINDOW
        while self._chunk_times and self._chunk_times[0] < since:
            self._chunk_times.popleft()
        return len(self._chunk_times) / _RATE_WINDOW


def watch_of(params: dict[str, Any], robot: RobotConfig) -> Watch | None:
    """The watch that the parameters ask for; None where no label is named. ConfigError."""
    hold_on, slow_on = (
        tuple(word.strip() for word in params[name].split(',') if word.strip())
        for name in ('hold_on_labels', 'slow_on_labels')
    )
    if not (hold_on or slow_on):
        return None
    return Watch(
        WatchConfig(
            cameras_of(params['watch_cameras'], robot.cameras),
            hold_on,
            slow_on,
            min_score=params['watch_score'],
            max_age_ms=params['max_detection_age_ms'],
            clear_s=params['watch_clear'],
            slow_factor=params['slow_factor'],
        )
    )


def main(args: list[str] | None = None) -> int:
    """Entry point of lib/vla_trt_ros/command_node."""
    return run_node(CommandNode, args)


if __name__ == '__main__':
    sys.exit(main())
