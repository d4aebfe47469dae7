"""The command node as a process: chunks and joint states in, controller messages out, over DDS."""

import contextlib
import dataclasses
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

from diagnostic_msgs.msg import DiagnosticArray
from ros_system import Client, running
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from vla_trt_ros.config import load_robot
from vla_trt_ros.datatypes import NS, ActionChunk, Reason, State
from vla_trt_ros.msg import ActionChunk as ActionChunkMsg
from vla_trt_ros.msg import PolicyStatus
from vla_trt_ros.nodes.publish import (
    COMMAND_QOS,
    EVENT_QOS,
    LATCHED_QOS,
    STATE_QOS,
    chunk_to_msg,
    time_msg,
)

pytestmark = pytest.mark.ros

ROBOT = """\
name: arm
description: two joints
joints:
  - {name: shoulder, unit: rad, lower: -1.0, upper: 1.0, max_velocity: 2.0, max_step: 0.1,
     tracking_tolerance: 0.5}
  - {name: elbow, unit: rad, lower: -1.0, upper: 1.0, max_velocity: 2.0, max_step: 0.1,
     tracking_tolerance: 0.5}
cameras:
  base: {topic: base/image_raw}
control_rate: 20.0
controller: {kind: trajectory, topic: arm_controller/joint_trajectory}
safety: {blend_in: 0.2, stop_after: 0.6}
"""


class Arm(Client):
    """The rest of the system: an arm that says where it is, a policy, and a controller's ears."""

    def __init__(self) -> None:
        super().__init__()
        create = self.node.create_publisher
        self._states = create(JointState, 'joint_states', STATE_QOS)
        self._chunks = create(ActionChunkMsg, 'action_chunk', COMMAND_QOS)
        self._estop = create(Bool, 'estop', EVENT_QOS)
        self.trajectories = self.hear(
            JointTrajectory, 'arm_controller/joint_trajectory', COMMAND_QOS
        )
        self.rows = self.hear(
            Float64MultiArray, 'forward_position_controller/commands', COMMAND_QOS
        )
        self.status = self.hear(PolicyStatus, 'command/status', LATCHED_QOS)
        self.diagnostics = self.hear(DiagnosticArray, '/diagnostics', EVENT_QOS)
        self.policy_on = True
        self.goal = np.array([0.1, -0.1])
        self._id = 0
        self.node.create_timer(0.02, self._tell_state)
        self.node.create_timer(0.1, self._tell_chunk)

    def _now(self) -> int:
        return self.node.get_clock().now().nanoseconds

    def _tell_state(self) -> None:
        msg = JointState(name=['elbow', 'finger', 'shoulder'], position=[0.0, 0.7, 0.0])
        msg.header.stamp = time_msg(self._now())
        self._states.publish(msg)

    def _tell_chunk(self) -> None:
        if self.policy_on:
            self.send(np.tile(self.goal, (10, 1)))

    def send(self, rows: np.ndarray, **fields: object) -> None:
        now = self._now() - 30_000_000
        chunk = ActionChunk(
            start_ns=now,
            observation_ns=now,
            step_ns=NS // 20,
            names=('shoulder', 'elbow'),
            actions=rows.astype(np.float32),
            chunk_id=self._id,
        )
        self._id += 1
        self._chunks.publish(chunk_to_msg(dataclasses.replace(chunk, **fields)))

    def estop(self, pressed: bool) -> None:
        self._estop.publish(Bool(data=pressed))

    def until_state(self, state: State, reason: Reason = Reason.NONE) -> PolicyStatus:
        def reached() -> bool:
            newest = self.status[-1] if self.status else None
            return newest is not None and (newest.state, newest.reason) == (state, reason)

        self.until(reached, 15, f'{state.name} {reason.name}')
        return self.status[-1]


@contextlib.contextmanager
def system(tmp_path, **parameters):
    robot = tmp_path / 'arm.yaml'
    robot.write_text(ROBOT)
    with running('command_node', robot=robot, **parameters) as process, Arm() as arm:
        arm.process = process
        yield arm


def test_chunks_become_trajectories_and_silence_becomes_a_hold_then_a_stop(tmp_path):
    with system(tmp_path, dry_run=False) as arm:
        arm.until_state(State.RUNNING)
        time.sleep(0.5)
        trajectory = arm.next(arm.trajectories)
        assert trajectory.joint_names == ['shoulder', 'elbow']
        assert 5 <= len(trajectory.points) <= 10
        assert list(trajectory.points[-1].positions) == pytest.approx([0.1, -0.1], abs=1e-3)
        assert list(trajectory.points[-1].velocities) == [0.0, 0.0]
        due = [p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in trajectory.points]
        assert np.diff(due) == pytest.approx(0.05)
        age = (
            arm._now() / 1e9 - trajectory.header.stamp.sec - trajectory.header.stamp.nanosec / 1e9
        )
        assert 0 <= age < 0.5

        arm.policy_on = False
        status = arm.until_state(State.HOLDING, Reason.STALE_CHUNK)
        assert 'is the policy running' in status.text
        assert len(arm.trajectories[-1].points) == 1
        status = arm.until_state(State.STOPPED, Reason.STALE_CHUNK)
        assert '~/reset' in status.text
        arm.policy_on = True
        assert arm.silent(arm.trajectories, 0.5)
        assert arm.call(Trigger, 'command/reset', Trigger.Request()).success
        status = arm.until_state(State.RUNNING)
        assert status.node == 'command'
        assert (status.dry_run, status.estop_latched) == (False, False)
        assert status.chunks > 5
        assert status.queue_depth > 0
        assert list(status.clamped_names) == ['shoulder', 'elbow']

        arm.send(np.full((10, 2), np.nan))
        arm.policy_on = False
        assert 'is nan' in arm.until_state(State.HOLDING, Reason.BAD_ACTION).text
        part = arm.next(arm.diagnostics).status[0]
        assert part.name == 'command: gate'
        assert {'chunk_bad', 'chunks', 'clamped elbow'} <= {v.key for v in part.values}


def test_estop_latches_until_release_and_both_resets(tmp_path):
    with system(tmp_path, dry_run=False) as arm:
        arm.until_state(State.RUNNING)
        arm.estop(True)
        assert arm.until_state(State.ESTOPPED, Reason.ESTOP).estop_latched
        time.sleep(0.1)
        (hold,) = arm.trajectories[-1].points
        assert list(hold.positions) == [0.0, 0.0]  # where the arm says it is
        assert arm.silent(arm.trajectories, 0.5)
        assert not arm.call(Trigger, 'command/reset', Trigger.Request()).success
        answer = arm.call(Trigger, 'command/estop_reset', Trigger.Request())
        assert (answer.success, 'release it first' in answer.message) == (False, True)
        arm.estop(False)
        arm.until(
            lambda: arm.call(Trigger, 'command/estop_reset', Trigger.Request()).success,
            what='reset',
        )
        arm.until_state(State.STOPPED, Reason.ESTOP)
        assert arm.silent(arm.trajectories, 0.5)
        assert arm.call(Trigger, 'command/reset', Trigger.Request()).success
        arm.until_state(State.RUNNING)
        assert arm.call(SetBool, 'command/enable', SetBool.Request(data=False)).success
        arm.until_state(State.INACTIVE, Reason.DISABLED)
        time.sleep(0.1)
        assert arm.silent(arm.trajectories, 0.4)


def test_dry_run_is_the_default_and_sends_nothing(tmp_path):
    with system(tmp_path) as arm:
        status = arm.until_state(State.RUNNING)
        assert status.dry_run
        assert arm.silent(arm.trajectories, 1.0)
        arm.until(lambda: arm.status[-1].chunks > 5, what='chunks that were taken')
        assert not arm.trajectories


def test_a_position_controller_gets_a_row_per_tick_and_the_end_brakes(tmp_path):
    with system(tmp_path, dry_run=False, controller='position') as arm:
        arm.until_state(State.RUNNING)
        time.sleep(0.5)
        arm.rows.clear()
        time.sleep(1.0)
        rows = [list(m.data) for m in arm.rows]
        assert 18 <= len(rows) <= 35  # control_rate, and one more for each chunk
        assert rows[-1] == pytest.approx([0.1, -0.1], abs=1e-3)
        assert not arm.trajectories


def test_the_end_of_the_node_ends_the_motion(tmp_path):
    with system(tmp_path, dry_run=False) as arm:
        arm.until_state(State.RUNNING)
        arm.process.terminate()
        assert arm.process.wait(10) == 0
        time.sleep(0.2)
        assert len(arm.trajectories[-1].points) == 1
        assert not any('Traceback' in line for line in arm.process.log)


def test_an_unknown_controller_is_refused_by_name(tmp_path):
    with running('command_node', controller='velocity') as process:
        assert process.wait(20) != 0
    assert any('none of trajectory, position' in line for line in process.log)


def test_the_repository_robot_loads():
    assert load_robot('metaworld').controller.of_kind('').kind == 'trajectory'
