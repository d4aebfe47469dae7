"""The ladder, rung by rung: what the gate does when all is well, and each way it can go wrong."""

from dataclasses import replace

import numpy as np
import pytest
from gate_world import MS, NAMES, T0, World, chunk, joints, robot

from vla_trt_ros.actions.gate import CommandGate
from vla_trt_ros.config import JointConfig
from vla_trt_ros.datatypes import CommandKind, Reason, State


def still(_):
    return np.zeros((10, 2))


def forward(t):
    """The shoulder at 0.4 rad/s, made for the moment it is asked for."""
    return np.stack([0.4 * (t + 0.05 * np.arange(1, 11)), np.zeros(10)], axis=1)


def running(kind='trajectory', policy=forward, seconds=0.5, **safety) -> World:
    world = World(robot(**safety), kind=kind)
    world.policy = policy
    status = world.run(seconds)
    assert status.state is State.RUNNING
    return world


def max_step(trace) -> float:
    return float(np.abs(np.diff(np.array(trace), axis=0)).max())


def test_it_waits_and_says_for_what():
    world = World(robot())
    world.alive = False
    assert world.run(0.1).reason is Reason.NO_STATE
    world.alive = True
    status = world.run(0.1)
    assert (status.state, status.reason) == (State.WAITING, Reason.NO_CHUNK)
    assert world.commands == []


def test_no_motion_without_joint_states():
    world = World(robot())
    world.alive, world.policy = False, forward
    status = world.run(1.0)
    assert (status.state, status.reason) == (State.WAITING, Reason.NO_STATE)
    assert 'joint_states' in status.text
    assert world.commands == []


def test_one_trajectory_per_chunk_with_all_rows_ahead_and_a_last_point_at_rest():
    world = World(robot())
    world.run(0.1)
    world.offer(forward(0.0), start_ns=world.now_ns - 60 * MS)
    world.tick()
    (command,) = world.commands
    assert command.names == NAMES
    assert command.positions.shape == (9, 2)  # row 0 was over
    assert command.times == pytest.approx([0.04 + 0.05 * k for k in range(9)])
    assert not command.velocities[-1].any()
    assert (command.velocities[:-1, 0] > 0.1).all()
    assert world.gate.status().rows_left == 9
    world.tick()
    assert len(world.commands) == 1


def test_rows_older_than_the_age_budget_are_never_sent():
    world = World(robot(max_chunk_age_ms=300.0))
    world.run(0.1)
    world.offer(np.tile([0.01, 0.0], (50, 1)))
    world.tick()
    assert world.commands[0].times[-1] == pytest.approx(0.3)


@pytest.mark.parametrize('kind', ['trajectory', 'position'])
def test_a_stream_of_chunks_moves_steadily_and_follows_the_policy(kind):
    world = running(kind, seconds=1.5)
    speed = np.diff(np.array(world.trace)[80:, 0]) / 0.01
    if kind == 'trajectory':
        assert speed == pytest.approx(0.4, rel=1e-3)
    assert np.mean(speed) == pytest.approx(0.4, rel=0.02)
    assert world.position[0] == pytest.approx(0.4 * 1.5, abs=0.03)
    assert world.gate.status().clamped == {'shoulder': 0, 'elbow': 0}


def test_the_first_motion_fades_in_from_the_measured_position():
    world = World(robot(blend_in=1.0))
    world.position = np.array([0.5, 0.0])
    world.policy = lambda _: np.tile([0.8, 0.0], (10, 1))
    world.run(2.0)
    shoulder = np.array(world.trace)[:, 0]
    s = np.arange(1, 100) / 100  # smoothstep over blend_in, 0.3 rad high
    assert shoulder[:99] == pytest.approx(0.5 + 0.3 * s * s * (3 - 2 * s), abs=0.002)
    assert shoulder[-1] == pytest.approx(0.8)
    assert (np.diff(shoulder) > -2e-4).all()


def test_a_policy_that_dies_lets_the_rows_run_out_then_holds_then_stops():
    world = running()
    world.policy = None
    world.run(0.55)
    status = world.run(0.1)
    assert (status.state, status.reason) == (State.HOLDING, Reason.STALE_CHUNK)
    assert 'is the policy running' in status.text
    assert max_step(world.trace) < 0.4 * 0.01 * 1.7  # no jump anywhere
    where, sent = world.position.copy(), len(world.commands)
    status = world.run(2.2)
    assert status.state is State.STOPPED
    assert '~/reset' in status.text
    world.policy = forward
    assert world.run(1.0).state is State.STOPPED
    assert world.position == pytest.approx(where)
    assert len(world.commands) == sent
    assert world.gate.status().counts['chunk_ignored'] == 10


def test_a_hold_ends_by_itself_and_fades_in_again():
    world = running(blend_in=0.5)
    world.policy = None
    world.run(0.8)
    assert world.states[-1] == 'HOLDING'
    begin = len(world.trace)
    world.policy = lambda _: np.tile([0.6, 0.0], (10, 1))
    assert world.run(1.0).state is State.RUNNING
    assert max_step(world.trace[begin - 1 :]) < 0.02
    assert world.position[0] == pytest.approx(0.6)


@pytest.mark.parametrize('kind', ['trajectory', 'position'])
def test_stale_joint_states_brake_within_their_budget(kind):
    world = running(kind)
    world.alive = False
    at = world.position[0]
    status = world.run(0.2)
    assert (status.state, status.reason) == (State.HOLDING, Reason.STALE_STATE)
    world.run(0.3)
    assert world.velocity[0] == pytest.approx(0.0, abs=2e-3)
    assert world.position[0] - at < 0.4 * (0.15 + 0.05 + 0.2)
    world.alive = True
    assert world.run(0.3).state is State.RUNNING


def test_braking_takes_brake_time_and_not_less():
    world = running()
    world.alive = False
    world.run(0.5)
    speed = np.diff(np.array(world.trace)[:, 0]) / 0.01
    assert (np.abs(np.diff(speed)[-45:]) <= 0.4 / 0.2 * 0.01 * 1.5).all()


@pytest.mark.parametrize(
    'sample',
    [
        lambda now: joints(now, np.nan, 0.0),
        lambda now: joints(now, 0.0, np.inf),
        lambda now: joints(now, 0.0, 0.0, 1.0, names=('shoulder', 'elbow', 'elbow')),
    ],
)
def test_nonsense_from_the_robot_holds_at_once(sample):
    world = running()
    assert world.gate.offer_joints(sample(world.now_ns + 1), world.now_ns) is Reason.BAD_STATE
    status = world.tick()
    assert (status.state, status.reason) == (State.HOLDING, Reason.BAD_STATE)
    assert status.rejected == 1


def test_a_partial_publisher_on_the_same_topic_does_no_harm_but_does_not_keep_it_fresh():
    world = running()
    for _ in range(30):
        part = joints(world.now_ns, 0.3, names=('gripper',))
        assert world.gate.offer_joints(part, world.now_ns) is Reason.BAD_STATE
        world.run(0.01)
    assert world.states[-1] == 'RUNNING'
    world.alive = False
    for _ in range(30):
        world.gate.offer_joints(joints(world.now_ns, 0.3, names=('gripper',)), world.now_ns)
        world.run(0.01)
    assert world.gate.status().reason is Reason.BAD_STATE


def test_a_frozen_encoder_that_repeats_its_stamp_is_stale():
    world = running()
    world.alive = False
    frozen = joints(world.now_ns, *world.position)
    for _ in range(30):
        world.gate.offer_joints(frozen, world.now_ns)
        world.run(0.01)
    assert world.gate.status().reason is Reason.STALE_STATE
    assert world.gate.status().counts['state_not_rising'] > 20


def test_nan_from_the_policy_holds_at_once_and_a_good_chunk_resumes():
    world = running()
    world.policy = None
    rows = forward(0.5)
    rows[7, 0] = np.nan
    assert world.offer(rows) is Reason.BAD_ACTION
    status = world.tick()
    assert (status.state, status.reason) == (State.HOLDING, Reason.BAD_ACTION)
    assert 'row 7 of shoulder is nan' in status.text
    assert status.counts['chunk_bad'] == 1
    world.policy = forward
    assert world.run(0.5).state is State.RUNNING


def test_a_late_or_doubled_chunk_is_refused_and_the_rows_run_on():
    world = running()
    world.policy = None
    last = world.next_id - 1
    assert world.offer(forward(0.5), chunk_id=last) is Reason.STALE_CHUNK
    status = world.tick()
    assert status.state is State.RUNNING
    assert status.counts['chunk_out_of_order'] == 1


def test_a_chunk_from_the_future_is_refused_while_waiting_and_the_status_says_so():
    world = World(robot())
    world.run(0.1)
    assert world.offer(still(0), start_ns=world.now_ns + 1_100 * MS) is Reason.CLOCK
    status = world.run(0.1)
    assert (status.state, status.reason) == (State.WAITING, Reason.CLOCK)
    assert 'synchronise the clocks' in status.text
    assert world.commands == []


def test_something_in_the_way_holds_where_the_arm_is_and_thrice_is_a_stop():
    world = running()
    world.blocked = True
    status = world.run(0.8)
    assert 'HOLDING' in world.states
    hold = next(c for c in world.commands if len(c.positions) == 1 and c.stamp_ns > T0 + 500 * MS)
    assert hold.positions[0] == pytest.approx(world.position)
    status = world.run(5.0)
    assert (status.state, status.reason) == (State.STOPPED, Reason.TRACKING_ERROR)
    assert 'shoulder is at' in status.text
    assert status.counts['hold_tracking_error'] == 3
    done, _ = world.gate.reset(world.now_ns)
    world.blocked = False
    world.policy = still
    assert done
    assert world.run(0.5).state is State.RUNNING


def test_slow_joint_states_are_compared_with_where_the_arm_was_sent_back_then():
    fast = lambda t: 4.5 * forward(t)  # noqa: E731  1.8 rad/s: 0.25 rad in 140 ms, tolerance 0.2
    world = running(policy=fast, seconds=0.3)
    world.alive = False
    assert world.run(0.14).state is State.RUNNING
    assert 'hold_tracking_error' not in world.gate.status().counts


def test_tracking_errors_never_stop_where_the_robot_file_says_0():
    world = running(max_tracking_errors=0)
    world.blocked = True
    assert world.run(8.0).state in (State.HOLDING, State.RUNNING)
    assert world.gate.status().counts['hold_tracking_error'] > 3


@pytest.mark.parametrize('kind', ['trajectory', 'position'])
def test_estop_holds_the_measured_position_once_and_then_is_silent(kind):
    world = running(kind)
    world.gate.estop(True, world.now_ns)
    measured = world.position.copy()
    before = len(world.commands)
    world.gate.offer_joints(joints(world.now_ns, *measured), world.now_ns)
    world.gate.estop(True, world.now_ns)
    status = world.tick()
    assert (status.state, status.reason, status.estop_latched) == (
        State.ESTOPPED,
        Reason.ESTOP,
        True,
    )
    (command,) = world.commands[before:]
    assert command.positions == pytest.approx(measured[None], abs=0.4 * 0.03)
    assert not command.velocities.any()
    world.run(1.0)
    assert len(world.commands) == before + 1
    assert world.states[-1] == 'ESTOPPED'


def test_estop_takes_release_and_two_resets_and_then_fades_in():
    world = running(blend_in=0.5)
    world.gate.estop(True, world.now_ns)
    world.run(0.2)
    assert world.gate.reset(world.now_ns)[0] is False
    done, text = world.gate.reset_estop(world.now_ns)
    assert (done, text) == (False, 'the e-stop input is still true: release it first.')
    world.gate.estop(False, world.now_ns)
    assert world.run(0.2).state is State.ESTOPPED
    assert world.gate.reset_estop(world.now_ns)[0] is True
    status = world.run(0.3)
    assert (status.state, status.reason) == (State.STOPPED, Reason.ESTOP)
    assert not status.estop_latched
    assert world.gate.reset(world.now_ns)[0] is True
    world.policy = None
    assert world.run(0.3).state is State.WAITING  # no chunk from before the reset is executed
    begin = len(world.trace)
    world.policy = lambda _: np.tile([0.7, 0.0], (10, 1))
    assert world.run(1.0).state is State.RUNNING
    assert max_step(world.trace[begin - 1 :]) < 0.02


def test_estop_before_anything_was_sent_sends_nothing():
    world = World(robot())
    world.run(0.1)
    world.gate.estop(True, world.now_ns)
    assert world.run(0.2).state is State.ESTOPPED
    assert world.commands == []


def test_estop_with_a_silent_robot_holds_the_commanded_position():
    world = running(policy=still)
    world.alive = False
    world.run(0.14)
    world.now_ns += 100 * MS
    world.gate.estop(True, world.now_ns)
    before = len(world.commands)
    world.tick()
    assert world.commands[before].positions == pytest.approx(np.zeros((1, 2)))


def test_disable_brakes_and_goes_silent_and_enable_starts_anew():
    world = running()
    assert world.gate.enable(False, world.now_ns) == (True, 'disabled.')
    world.run(0.3)
    assert world.velocity == pytest.approx([0.0, 0.0], abs=1e-9)
    sent = len(world.commands)
    status = world.run(0.5)
    assert (status.state, status.reason) == (State.INACTIVE, Reason.DISABLED)
    assert len(world.commands) == sent
    assert world.gate.reset(world.now_ns)[0] is False
    assert world.gate.enable(True, world.now_ns)[0] is True
    assert world.run(0.5).state is State.RUNNING


@pytest.mark.parametrize('again', ['enable', 'reset'])
def test_after_a_restart_only_what_was_seen_since_moves_the_arm(again):
    world = running()
    if again == 'enable':
        world.gate.enable(False, world.now_ns)
    else:
        world.alive, world.policy = False, None
        assert world.run(3.0).state is State.STOPPED
        world.alive = True
    world.policy = None
    world.run(0.5)
    if again == 'enable':
        world.gate.enable(True, world.now_ns)
    else:
        world.gate.reset(world.now_ns)
    at, before = world.position.copy(), world.now_ns - 1
    world.run(0.1)
    rows = np.full((10, 2), 0.5)
    assert world.offer(rows, observation_ns=before) is Reason.STALE_CHUNK
    status = world.run(0.3)
    assert status.state is State.WAITING
    assert 'before the reset or enable' in status.text
    assert status.counts['chunk_before_restart'] == 1
    assert world.position == pytest.approx(at)
    assert world.offer(rows, observation_ns=before + 1) is Reason.NONE
    assert world.run(0.2).state is State.RUNNING


def test_estop_while_disabled_goes_back_to_disabled():
    world = running()
    world.gate.enable(False, world.now_ns)
    world.gate.estop(True, world.now_ns)
    assert world.gate.enable(True, world.now_ns)[0] is False
    world.gate.estop(False, world.now_ns)
    world.gate.reset_estop(world.now_ns)
    assert world.run(0.5).state is State.INACTIVE


@pytest.mark.parametrize('kind', ['trajectory', 'position'])
def test_time_that_jumps_back_holds_and_goes_on_with_the_new_clock(kind):
    world = running(kind)
    at, new_clock = world.position.copy(), World(robot(), kind=kind)
    new_clock.gate, new_clock.next_id, new_clock.position = world.gate, world.next_id, at
    new_clock.now_ns = world.now_ns - 300 * MS
    new_clock.alive = False
    status = new_clock.run(0.1)
    assert (status.state, status.reason) == (State.HOLDING, Reason.CLOCK)
    assert 'time jumped back by 290 ms' in status.text
    assert new_clock.commands[0].positions[0] == pytest.approx(at, abs=0.4 * (0.2 / 2 + 0.05))
    new_clock.alive = True
    new_clock.policy = still_at(at)
    assert new_clock.run(1.0).state is State.RUNNING
    assert max_step(new_clock.trace) < 0.01
    assert world.gate.status().counts['clock_jumps'] == 1


def still_at(position):
    return lambda _: np.tile(position, (10, 1))


def test_a_clock_that_is_slewed_back_a_little_changes_nothing():
    world = running()
    _, status = world.gate.tick(world.now_ns - 10 * MS - 9 * MS)
    assert status.state is State.RUNNING


def test_dry_run_computes_everything_and_sends_nothing():
    world = World(robot(), dry_run=True)
    world.policy = forward
    status = world.run(1.0)
    assert status.state is State.RUNNING
    assert status.rows_left > 5
    assert status.chunks == 10
    assert world.commands == []


def test_dry_run_is_the_default():
    from vla_trt_ros.actions.gate import CommandGate

    assert CommandGate(robot()).dry_run is True


def test_a_tick_that_comes_late_does_not_leap():
    world = running('position', policy=lambda t: forward(t) * 5)  # at the speed limit
    last = world.commands[-1].positions[0]
    world.now_ns += 140 * MS
    world.tick()
    assert np.abs(world.commands[-1].positions[0] - last).max() <= 0.1 + 1e-9


def test_clamped_elements_are_counted_for_their_joint():
    world = World(robot())
    world.policy = lambda _: np.tile([0.0, 5.0], (10, 1))
    status = world.run(1.0)
    assert status.clamped['shoulder'] == 0
    assert status.clamped['elbow'] == 10 * 10  # every row of every chunk


@pytest.mark.parametrize('kind', ['trajectory', 'position'])
@pytest.mark.parametrize('seed', range(8))
def test_whatever_happens_the_commanded_speed_keeps_its_limit(kind, seed):
    """Random chunks, gaps, NaN and silences: speed and position limits hold throughout."""
    rng = np.random.default_rng(seed)
    world = World(
        robot(blend_in=0.2, blend_time=0.1, stop_after=30.0, max_tracking_errors=0), kind=kind
    )

    def wild(_):
        if rng.random() < 0.4:
            return None
        rows = world.position + rng.normal(scale=0.3, size=(10, 2)).cumsum(axis=0)
        if rng.random() < 0.05:
            rows[3, 1] = np.nan
        return rows

    world.policy = wild
    for _ in range(20):
        world.alive = rng.random() > 0.1
        world.run(0.25)
    speed = np.abs(np.diff(np.array(world.trace), axis=0)) / 0.01
    assert (speed.max(axis=0) <= np.array([2.0, 1.0]) * (1 + 1e-6)).all()
    assert (np.abs(world.trace) <= np.array([1.0, 2.0]) + 1e-3).all()
    assert 'RUNNING' in world.states
    assert 'HOLDING' in world.states


def with_gripper(**safety):
    """The elbow as a gripper that an object keeps 0.4 open."""
    arm = robot(**safety)
    gripper = JointConfig('elbow', 'ratio', 0.0, 1.0, 20.0, 1.0, 1.1)
    return replace(arm, joints=(arm.joints[0], gripper))


@pytest.mark.parametrize('end', ['estop', 'tracking'])
def test_grip_is_kept_where_the_arm_rests_where_it_is(end):
    gate = CommandGate(with_gripper(), kind=CommandKind.TRAJECTORY, dry_run=False)
    now = T0
    gate.offer_joints(joints(now, 0.0, 0.4), now)
    gate.offer_chunk(chunk(now, np.tile([0.05, 0.0], (10, 1))), now)
    gate.tick(now)
    now += 400 * MS
    shoulder = 0.05 if end == 'estop' else -0.6
    gate.offer_joints(joints(now, shoulder, 0.4), now)
    if end == 'estop':
        gate.estop(True, now)
    command, _ = gate.tick(now)
    assert command.positions[-1] == pytest.approx([shoulder, 0.0])


def test_grip_is_kept_when_motion_starts_again():
    gate = CommandGate(with_gripper(blend_in=0.5), kind=CommandKind.TRAJECTORY, dry_run=False)
    now = T0
    gate.offer_joints(joints(now, 0.0, 0.4), now)
    gate.offer_chunk(chunk(now, np.tile([0.0, 0.0], (10, 1))), now)
    gate.tick(now)
    for _ in range(70):  # rows used up, held
        now += 10 * MS
        gate.offer_joints(joints(now, 0.0, 0.4), now)
        gate.tick(now)
    assert gate.status().state is State.HOLDING
    gate.offer_chunk(chunk(now, np.tile([0.0, 0.0], (10, 1)), chunk_id=1), now)
    command, status = gate.tick(now)
    assert status.state is State.RUNNING
    assert command.positions[:, 1] == pytest.approx(0.0, abs=1e-9)


def test_a_gripper_that_somebody_opened_starts_open():
    gate = CommandGate(with_gripper(blend_in=0.5), kind=CommandKind.TRAJECTORY, dry_run=False)
    now = T0
    gate.offer_joints(joints(now, 0.0, 0.4), now)
    gate.offer_chunk(chunk(now, np.tile([0.0, 0.0], (10, 1))), now)
    gate.tick(now)
    gate.enable(False, now)
    now += 1000 * MS
    gate.enable(True, now)
    gate.offer_joints(joints(now, 0.0, 0.98), now)
    gate.offer_chunk(chunk(now, np.tile([0.0, 1.0], (10, 1)), chunk_id=1), now)
    command, _ = gate.tick(now)
    assert command.positions[:, 1].min() >= 0.98


@pytest.mark.parametrize('kind', ['trajectory', 'position'])
def test_a_robot_that_was_moved_while_disabled_starts_from_there_without_a_tracking_error(kind):
    world = running(kind)
    world.gate.enable(False, world.now_ns)
    world.policy = None
    world.run(0.5)
    world.position = world.position + 0.7  # by hand: more than tracking_tolerance
    world._curve = None
    moved = world.position.copy()
    world.run(0.1)
    world.gate.enable(True, world.now_ns)
    world.run(0.05)
    world.alive = False  # the newest joint states are of before the chunk
    world.run(0.02)
    assert world.offer(np.tile(moved, (10, 1))) is Reason.NONE
    del world.states[:]
    world.run(0.05)
    world.alive = True
    world.run(0.25)
    assert set(world.states) == {'RUNNING'}
    assert world.position == pytest.approx(moved, abs=1e-3)
