"""What was done, at the times of a chunk's rows, from three kinds of recordings."""

import numpy as np
import pytest
from fakes import joints
from recordings import MS, ROBOT, T0, command

from vla_trt_ros.datatypes import ActionChunk, Command, CommandKind
from vla_trt_ros.replay.recorded import RecordedActions

STEP = 50 * MS


def rows(recorded, count=4, start=T0):
    recorded.advance(T0 + 10_000 * MS)
    return recorded.rows(start, STEP, count)


def test_position_commands_hold_until_the_next_one():
    recorded = RecordedActions(ROBOT, 'command')
    for k in range(3):
        # A little after the row began, as a controller sends them.
        recorded.offer(T0 + k * STEP + 5 * MS, command(T0 + k * STEP + 5 * MS, 0.1 * k))
    found = rows(recorded, 9)
    np.testing.assert_allclose(found[:3, 0], [0.0, 0.1, 0.2])
    np.testing.assert_allclose(found[3:8, 0], 0.2)  # no other came
    assert np.isnan(found[8]).all()  # and that one is too old by now


def test_joints_are_found_by_name_and_others_are_unknown():
    recorded = RecordedActions(ROBOT, 'command')
    recorded.offer(T0, command(T0, 0.3, names=('gripper', 'hand_x'), gripper=0.7))
    np.testing.assert_allclose(rows(recorded, 1), [[0.3, np.nan, np.nan, 0.7]])


def test_trajectory_is_read_at_the_end_of_each_row():
    recorded = RecordedActions(ROBOT, 'command')
    times = np.array([0.05, 0.15])
    points = np.outer([1.0, 3.0], [0.1, 0.6, 0.2, 1.0])
    trajectory = Command(CommandKind.TRAJECTORY, T0, ROBOT.joint_names, points, 0 * points, times)
    recorded.offer(T0 + 3 * MS, trajectory)
    np.testing.assert_allclose(rows(recorded, 4)[:, 0], [0.1, 0.2, 0.3, 0.3])


def test_chunks_of_the_policy_that_ran():
    recorded = RecordedActions(ROBOT, 'chunk')
    actions = np.arange(12, dtype=np.float32).reshape(3, 4)
    for k in range(2):
        chunk = ActionChunk(T0 + k * STEP, T0, STEP, ROBOT.joint_names, actions + 100 * k)
        # In force from when it was published: 60 ms after the exposure.
        recorded.offer(T0 + k * STEP + 60 * MS, chunk)
    found = rows(recorded, 6)
    assert np.isnan(found[0]).all()  # nothing had been published
    np.testing.assert_allclose(found[1], actions[1])
    np.testing.assert_allclose(found[2], actions[1] + 100)
    np.testing.assert_allclose(found[3], actions[2] + 100)
    assert np.isnan(found[4:]).all()


def state(at_ns, hand_x, names=('hand_x', 'hand_y', 'hand_z', 'gripper')):
    values = {'hand_x': hand_x, 'hand_y': 0.6, 'hand_z': 0.2, 'gripper': 1.0}
    return joints(at_ns, **{n: values[n] for n in names})


def test_joint_states_at_the_end_of_a_row_whatever_their_order():
    recorded = RecordedActions(ROBOT, 'joints')
    for k in range(5):
        names = ('hand_x', 'hand_y', 'hand_z', 'gripper')
        at = T0 + k * 40 * MS
        recorded.offer(at, state(at, 0.01 * k, names if k < 2 else names[::-1]))
    found = rows(recorded, 4)
    np.testing.assert_allclose(found[:3, 0], [0.0125, 0.025, 0.0375])
    np.testing.assert_allclose(found[:3, 1], 0.6)
    assert np.isnan(found[3]).all()  # after the last one


def test_nothing_is_made_up_across_a_gap_or_before_the_first():
    recorded = RecordedActions(ROBOT, 'joints')
    for at in (100, 150, 500, 550):
        recorded.offer(T0 + at * MS, state(T0 + at * MS, at))
    found = rows(recorded, 11)[:, 0]
    np.testing.assert_allclose(found[[1, 2, 9, 10]], [100, 150, 500, 550])
    assert np.isnan(found[[0, *range(3, 9)]]).all()


@pytest.mark.parametrize(('jump_ms', 'value'), [(-100, 0.0), (-5000, 0.5)])
def test_clock_that_jumps_back_is_late_or_a_new_run(jump_ms, value):
    recorded = RecordedActions(ROBOT, 'command')
    recorded.offer(T0, command(T0, 0.0))
    back = T0 + jump_ms * MS
    recorded.offer(back, command(back, 0.5))
    start = T0 if value == 0.0 else back
    assert rows(recorded, 1, start)[0, 0] == value


def test_what_is_behind_is_forgotten():
    recorded = RecordedActions(ROBOT, 'command')
    for k in range(1000):
        recorded.offer(T0 + k * MS, command(T0 + k * MS, k))
    recorded.forget(T0 + 900 * MS)
    assert len(recorded._kept) < 200
    assert rows(recorded, 1, T0 + 900 * MS)[0, 0] == 925
