import re
from types import SimpleNamespace as Msg

import numpy as np
import pytest

from vla_trt_ros.errors import BadAction
from vla_trt_ros.sim.trajectory_controller import (
    PositionController,
    Trajectory,
    TrajectoryController,
    trajectory_from_msg,
)

S = 1_000_000_000
NOW = 1_700_000_000 * S


def controller():
    return TrajectoryController(('a', 'b'), np.array([1.0, 10.0]))


def two_points(*, stamp_ns=NOW, velocities=None, names=('a', 'b')):
    """At +1 s at (2, 20), at +3 s at (6, 0)."""
    return Trajectory(
        stamp_ns=stamp_ns,
        names=names,
        times=np.array([1.0, 3.0]),
        positions=np.array([[2.0, 20.0], [6.0, 0.0]]),
        velocities=velocities,
    )


def test_without_a_command_it_holds():
    c = controller()
    assert c.sample(0).tolist() == [1.0, 10.0]
    assert c.sample(NOW).tolist() == [1.0, 10.0]
    assert c.done(NOW)


@pytest.mark.parametrize(
    ('at', 'expected'),
    [
        (0.0, (1.0, 10.0)),  # accepted: still where it was
        (0.5, (1.5, 15.0)),  # on the way to the first point
        (1.0, (2.0, 20.0)),  # on a point
        (1.5, (3.0, 15.0)),  # between
        (3.0, (6.0, 0.0)),
        (99.0, (6.0, 0.0)),  # after
    ],
)
def test_without_velocities_it_goes_in_straight_lines(at, expected):
    c = controller()
    c.accept(two_points(), NOW)
    assert c.sample(NOW + int(at * S)) == pytest.approx(expected)
    assert c.done(NOW + int(at * S)) == (at >= 3.0)


def test_a_clock_before_the_command_gives_its_start():
    c = controller()
    c.accept(two_points(), NOW)
    assert c.sample(NOW - S).tolist() == [1.0, 10.0]


def test_velocities_make_a_cubic():
    c = controller()
    v = np.array([[1.0, 0.0], [0.0, 0.0]])
    c.accept(two_points(velocities=v), NOW)
    # Hermite from (2, v=1) to (6, v=0) over 2 s, at its middle: 4 + (1 - 0) * 2 / 8 = 4.25.
    assert c.sample(NOW + 2 * S) == pytest.approx([4.25, 10.0])
    assert c.sample(NOW + 1 * S) == pytest.approx([2.0, 20.0])
    assert c.state(NOW + 1 * S)[1] == pytest.approx([1.0, 0.0])
    assert c.state(NOW + 3 * S)[1].tolist() == [0.0, 0.0]


def test_the_velocity_is_the_slope_of_the_position():
    c = controller()
    c.accept(two_points(velocities=np.array([[0.7, -3.0], [0.0, 0.0]])), NOW)
    for at in (0.3, 1.4, 2.9):
        t, h = NOW + int(at * S), 1000
        slope = (c.sample(t + h) - c.sample(t - h)) / (2 * h / S)
        assert c.state(t)[1] == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_names_may_come_in_any_order():
    c = controller()
    turned = Trajectory(NOW, ('b', 'a'), np.array([1.0]), np.array([[20.0, 2.0]]))
    c.accept(turned, NOW)
    assert c.sample(NOW + S).tolist() == [2.0, 20.0]


def test_a_stamp_of_zero_starts_on_arrival():
    c = controller()
    c.accept(two_points(stamp_ns=0), NOW)
    assert c.sample(NOW + S) == pytest.approx([2.0, 20.0])


def test_a_stamp_in_the_past_joins_in_at_the_right_place():
    c = controller()
    c.accept(two_points(stamp_ns=NOW - 2 * S), NOW)
    assert c.sample(NOW) == pytest.approx([4.0, 10.0])


def test_a_new_trajectory_goes_on_from_the_motion_of_the_old():
    c = controller()
    still = np.zeros((1, 2))
    c.accept(Trajectory(NOW, ('a', 'b'), np.array([2.0]), np.array([[5.0, 10.0]]), still), NOW)
    half = NOW + S
    position, velocity = c.state(half)
    assert velocity[0] > 1.0
    back = Trajectory(half, ('a', 'b'), np.array([1.0]), np.array([[1.0, 10.0]]), still)
    c.accept(back, half)
    assert c.state(half)[0] == pytest.approx(position)
    assert c.state(half)[1] == pytest.approx(velocity)
    assert c.sample(half + S) == pytest.approx([1.0, 10.0])


def test_hold_forgets_the_trajectory():
    c = controller()
    c.accept(two_points(), NOW)
    c.hold(np.array([7.0, 8.0]))
    assert c.sample(NOW + S).tolist() == [7.0, 8.0]


ROW = np.array([[2.0, 20.0]])
REFUSED = {
    "joint 'c' is unknown; this robot has a, b": (('a', 'b', 'c'), [1.0], [[1.0, 2.0, 3.0]], None),
    "joint 'b' is missing": (('a',), [1.0], [[1.0]], None),
    'a joint is named twice': (('a', 'b', 'a'), [1.0], [[1.0, 2.0, 3.0]], None),
    'trajectory is empty': (('a', 'b'), [], np.zeros((0, 2)), None),
    'from 1.0 s to 1.0 s at point 1: times must increase': (
        ('a', 'b'),
        [1.0, 1.0],
        [[1.0, 2.0], [1.0, 2.0]],
        None,
    ),
    'must be finite and not negative': (('a', 'b'), [-0.1], ROW, None),
    '1 points and 2 times': (('a', 'b'), [1.0, 2.0], ROW, None),
    'positions hold NaN or Inf': (('a', 'b'), [1.0], [[np.nan, 1.0]], None),
    'velocities hold NaN or Inf': (('a', 'b'), [1.0], ROW, [[0.0, np.inf]]),
    'positions have shape (1, 3) for 2 joints': (('a', 'b'), [1.0], [[1.0, 2.0, 3.0]], None),
    '1 positions and 2 velocities': (('a', 'b'), [1.0], ROW, np.zeros((2, 2))),
    'ends while b still moves': (('a', 'b'), [1.0], ROW, [[0.0, 0.1]]),
}


@pytest.mark.parametrize('reason', REFUSED)
def test_what_it_refuses_leaves_the_old_one_running(reason):
    names, times, positions, velocities = REFUSED[reason]
    c = controller()
    c.accept(two_points(), NOW)
    bad = Trajectory(
        NOW,
        names,
        np.array(times),
        np.array(positions),
        None if velocities is None else np.array(velocities),
    )
    with pytest.raises(BadAction, match=re.escape(reason)):
        c.accept(bad, NOW)
    assert c.sample(NOW + S) == pytest.approx([2.0, 20.0])


def test_a_trajectory_that_is_already_over_is_refused():
    with pytest.raises(BadAction, match=r'ended 2\.000 s ago'):
        controller().accept(two_points(stamp_ns=NOW - 5 * S), NOW)


def test_nanoseconds_are_kept_at_todays_dates():
    """A float64 of seconds since 1970 would be off by a hundred nanoseconds."""
    c = controller()
    c.accept(Trajectory(NOW + 1, ('a', 'b'), np.array([1e-6]), np.array([[2.0, 20.0]])), NOW)
    assert c.sample(NOW + 1001).tolist() == [2.0, 20.0]
    assert c.sample(NOW + 1000)[0] < 2.0


def msg(points, names=('a', 'b')):
    def point(positions, velocities, nanosec):
        return Msg(
            positions=positions,
            velocities=velocities,
            time_from_start=Msg(sec=1, nanosec=nanosec),
        )

    return Msg(
        header=Msg(stamp=Msg(sec=7, nanosec=5)),
        joint_names=list(names),
        points=[point(*p) for p in points],
    )


def test_a_message_is_read_by_its_fields():
    t = trajectory_from_msg(
        msg([([1.0, 2.0], [0.5, 0.25], 0), ([3.0, 4.0], [0.0, 0.0], 500_000_000)])
    )
    assert t.stamp_ns == 7 * S + 5
    assert t.names == ('a', 'b')
    assert t.times.tolist() == [1.0, 1.5]
    assert t.positions.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert t.velocities.tolist() == [[0.5, 0.25], [0.0, 0.0]]
    assert trajectory_from_msg(msg([([1.0, 2.0], [], 0)])).velocities is None
    assert trajectory_from_msg(msg([])).positions.shape == (0, 2)


def test_ragged_messages_are_refused():
    with pytest.raises(BadAction, match='point 1 has 1 positions for 2 joints'):
        trajectory_from_msg(msg([([1.0, 2.0], [], 0), ([1.0], [], 1)]))
    with pytest.raises(BadAction, match='1 of 2 points have velocities'):
        trajectory_from_msg(msg([([1.0, 2.0], [0.0, 0.0], 0), ([1.0, 2.0], [], 1)]))


def test_position_controller_goes_to_the_newest_row():
    c = PositionController(('a', 'b'), np.array([1.0, 10.0]))
    assert c.sample(NOW).tolist() == [1.0, 10.0]
    c.accept([3.0, 4.0])
    assert c.sample(NOW).tolist() == [3.0, 4.0]
    with pytest.raises(BadAction, match=r'1 values for 2 joints \(a, b\)'):
        c.accept([3.0])
    with pytest.raises(BadAction, match='NaN or Inf'):
        c.accept([3.0, float('nan')])
    assert c.sample(NOW).tolist() == [3.0, 4.0]
    c.hold(np.array([0.0, 1.0]))
    assert c.sample(NOW).tolist() == [0.0, 1.0]
