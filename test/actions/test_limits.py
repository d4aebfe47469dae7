import numpy as np
import pytest
from gate_world import ROBOT, hermite

from vla_trt_ros.actions.limits import Limits, limit_rows
from vla_trt_ros.errors import BadAction

LIMITS = Limits.of(ROBOT)  # shoulder +-1 rad at 2 rad/s, elbow +-2 rad at 1 rad/s
REST = np.zeros(2)


def times(n: int, first: float = 0.05) -> np.ndarray:
    return first + 0.05 * np.arange(n)


def test_speed_is_the_tighter_of_velocity_and_step():
    assert LIMITS.speed.tolist() == [2.0, 1.0]  # max_step 0.1 and 0.05 in 0.05 s
    tight = ROBOT.joints[0].__class__('shoulder', 'rad', -1.0, 1.0, 2.0, 0.02, 0.2)
    limits = Limits.of(ROBOT.__class__(**{**_fields(ROBOT), 'joints': (tight,)}))
    assert limits.speed.tolist() == [pytest.approx(0.4)]


def _fields(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_what_keeps_the_limits_passes_bit_for_bit():
    t = times(20)
    rows = np.stack([0.3 * np.sin(2 * t), 0.1 - 0.1 * np.cos(3 * t)], axis=1)
    limited = limit_rows(rows, t, np.array([0.0, 0.0]), np.array([0.6, 0.0]), LIMITS)
    assert np.array_equal(limited.positions[:-1], rows[:-1])
    assert limited.clamped.tolist() == [0, 0]
    assert not limited.velocities[-1].any()


def test_a_position_beyond_the_limit_ends_on_it():
    rows = np.tile([3.0, -3.0], (100, 1))
    limited = limit_rows(rows, times(100), REST, REST, LIMITS)
    assert limited.positions[-1] == pytest.approx([1.0, -2.0], abs=1e-6)
    assert limited.positions.max() <= 1.0
    assert limited.positions.min() >= -2.0
    assert limited.clamped.tolist() == [100, 100]


def test_a_leap_is_taken_at_the_speed_limit_and_counted_for_its_joint():
    rows = np.tile([0.0, 1.0], (40, 1))
    limited = limit_rows(rows, times(40), REST, REST, LIMITS)
    steps = np.diff(limited.positions[:, 1], prepend=0.0)
    assert steps.max() == pytest.approx(0.05, rel=1e-9)
    assert limited.positions[-1, 1] == pytest.approx(1.0)
    assert limited.clamped[0] == 0
    assert 15 <= limited.clamped[1] <= 25  # 1 rad at 1 rad/s is 20 rows


def test_a_start_beyond_a_limit_comes_back_slowly_and_never_goes_further_out():
    rows = np.tile([0.9, 0.0], (30, 1))
    limited = limit_rows(rows, times(30), np.array([1.5, 0.0]), REST, LIMITS)
    shoulder = np.concatenate([[1.5], limited.positions[:, 0]])
    assert (np.diff(shoulder) <= 1e-12).all()
    assert np.diff(shoulder).min() >= -0.1 - 1e-12
    assert shoulder[-1] == pytest.approx(0.9)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_no_number_no_motion(value):
    rows = np.ones((4, 2))
    rows[2, 1] = value
    with pytest.raises(BadAction, match='row 2 of elbow'):
        limit_rows(rows, times(4), REST, REST, LIMITS)


@pytest.mark.parametrize('seed', range(30))
def test_any_rows_keep_every_limit_at_and_between_the_knots(seed):
    rng = np.random.default_rng(seed)
    t = times(rng.integers(1, 25), first=rng.uniform(0.001, 0.05))
    rows = rng.normal(scale=rng.choice([0.02, 0.3, 5.0]), size=(len(t), 2)).cumsum(axis=0)
    p0 = rng.uniform(LIMITS.lower, LIMITS.upper)
    room = 3.0 * np.minimum(p0 - LIMITS.lower, LIMITS.upper - p0) / t[0]
    v0 = np.clip(rng.uniform(-1, 1, 2) * LIMITS.speed, -room, room)
    assert LIMITS.time_to_limit(p0, v0) >= t[0] * (1 - 1e-9)
    limited = limit_rows(rows, t, p0, v0, LIMITS)
    knots = np.concatenate([[0.0], t])
    positions = np.vstack([p0, limited.positions])
    velocities = np.vstack([v0, limited.velocities])
    for at in np.linspace(0.0, t[-1], 20 * len(t)):
        p, v = hermite(knots, positions, velocities, at)
        assert (np.abs(v) <= LIMITS.speed * (1 + 1e-9)).all(), at
        assert (p >= LIMITS.lower - 1e-9).all(), at
        assert (p <= LIMITS.upper + 1e-9).all(), at
    assert (np.abs(np.diff(limited.positions, axis=0)) <= LIMITS.speed * 0.05 + 1e-12).all()
