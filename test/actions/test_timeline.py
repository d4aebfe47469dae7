import numpy as np
import pytest
from gate_world import MS, hermite

from vla_trt_ros.actions.timeline import Timeline, row_at, row_due_ns

START = 7_000 * MS
# One joint: from 1.0 up to 2.0 at 0.1 s passing with 10/s, then to rest at 2.5 at 0.3 s.
LINE = Timeline(
    START,
    np.array([0.0, 0.1, 0.3]),
    np.array([[1.0], [2.0], [2.5]]),
    np.array([[10.0], [10.0], [0.0]]),
)


@pytest.mark.parametrize(
    ('at_ms', 'row'), [(-50, -1), (-1, -1), (0, 0), (49, 0), (50, 1), (51, 1), (500, 10)]
)
def test_row_k_runs_from_k_steps_to_k_plus_one(at_ms, row):
    assert row_at(START, 50 * MS, START + at_ms * MS) == row


def test_a_row_is_reached_at_the_end_of_its_step():
    assert row_due_ns(START, 50 * MS, 0) == START + 50 * MS
    assert row_at(START, 50 * MS, row_due_ns(START, 50 * MS, 3)) == 4


@pytest.mark.parametrize(
    ('at_ms', 'position', 'velocity'),
    [
        (-1000, 1.0, 10.0),
        (0, 1.0, 10.0),
        (50, 1.5, 10.0),  # a straight piece between knots
        (100, 2.0, 10.0),
        (300, 2.5, 0.0),
        (9000, 2.5, 0.0),
    ],
)
def test_before_on_between_and_past_the_knots(at_ms, position, velocity):
    p, v = LINE.at(START + at_ms * MS)
    assert p == pytest.approx([position])
    assert v == pytest.approx([velocity])


def test_between_knots_it_is_the_controllers_cubic():
    for ms in (1, 99, 101, 150, 222, 299):
        p, v = hermite(LINE.times, LINE.positions, LINE.velocities, ms / 1000)
        got_p, got_v = LINE.at(START + ms * MS)
        assert got_p == pytest.approx(p)
        assert got_v == pytest.approx(v)


@pytest.mark.parametrize(('at_ms', 'left'), [(-1, 2), (0, 2), (99, 2), (100, 1), (300, 0)])
def test_rows_left(at_ms, left):
    assert LINE.rows_left(START + at_ms * MS) == left


def test_one_knot_rests():
    still = Timeline(START, np.zeros(1), np.array([[0.4, 0.5]]), np.zeros((1, 2)))
    p, v = still.at(START + 3 * MS)
    assert (p.tolist(), v.tolist()) == ([0.4, 0.5], [0.0, 0.0])
    assert still.rows_left(START) == 0


@pytest.mark.parametrize('times', [[], [0.1], [0.0, 0.0], [0.0, 0.2, 0.1]])
def test_empty_or_unordered_knots_are_refused(times):
    with pytest.raises(ValueError, match='knot'):
        Timeline(START, np.array(times), np.ones((len(times), 1)), np.ones((len(times), 1)))


def test_braking_is_even_and_ends_at_rest():
    lower, upper = np.array([-1.0]), np.array([1.0])
    brake = Timeline.brake(np.array([0.5]), np.array([1.0]), START, 0.2, lower, upper)
    speeds = [brake.at(START + ms * MS)[1][0] for ms in (0, 50, 100, 150, 200)]
    assert speeds == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    assert brake.at(START + 200 * MS)[0] == pytest.approx([0.6])


@pytest.mark.parametrize(
    ('position', 'velocity', 'stop'), [(0.95, 1.0, 1.0), (1.2, 1.0, 1.2005), (-1.2, 0.0, -1.2)]
)
def test_braking_stops_at_a_limit_and_does_not_move_back_into_it(position, velocity, stop):
    lower, upper = np.array([-1.0]), np.array([1.0])
    brake = Timeline.brake(np.array([position]), np.array([velocity]), START, 0.2, lower, upper)
    reached = [brake.at(START + ms * MS)[0][0] for ms in range(250)]
    assert reached[-1] == max(reached) == pytest.approx(stop)


def test_a_joint_near_its_limit_stops_sooner_and_the_others_brake_as_ever():
    lower, upper = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    brake = Timeline.brake(np.array([0.95, 0.0]), np.array([1.0, -1.0]), START, 0.2, lower, upper)
    assert brake.times == pytest.approx([0.0, 0.1, 0.2])
    assert brake.at(START + 100 * MS)[1] == pytest.approx([0.0, -0.5])
    assert brake.at(START + 50 * MS)[1] == pytest.approx([0.5, -0.75])
    assert brake.at(START + 200 * MS)[0] == pytest.approx([1.0, -0.1])
