import numpy as np
import pytest
from gate_world import ROBOT

from vla_trt_ros.actions.layout import JointLayout
from vla_trt_ros.datatypes import JointSample
from vla_trt_ros.errors import BadAction, BadState, ConfigError

# The model's order is not the robot's.
LAYOUT = JointLayout(ROBOT, ('elbow', 'shoulder'), ('elbow', 'shoulder'), ('absolute', 'delta'))


def sample(**positions: float) -> JointSample:
    return JointSample(1, 1, tuple(positions), np.array(list(positions.values())))


def test_to_model_picks_by_name_in_any_order_and_ignores_other_joints():
    state = LAYOUT.to_model(sample(wheel=9.0, shoulder=0.25, head=7.0, elbow=-0.5))
    assert state.dtype == np.float32
    assert state.tolist() == [-0.5, 0.25]


@pytest.mark.parametrize(
    ('joints', 'words'),
    [
        (sample(elbow=1.0, wheel=2.0), 'lack shoulder; they name elbow, wheel'),
        (sample(elbow=1.0, shoulder=np.nan), 'shoulder is nan'),
        (sample(elbow=-np.inf, shoulder=0.0), 'elbow is -inf'),
        (JointSample(1, 1, ('elbow', 'shoulder', 'elbow'), np.arange(3.0)), "'elbow' more than"),
        (JointSample(1, 1, ('elbow', 'shoulder'), np.arange(3.0)), '2 joints but hold 3'),
        (JointSample(1, 1, (), np.array([])), 'they name none'),
    ],
)
def test_bad_state_is_named(joints, words):
    with pytest.raises(BadState, match=words):
        LAYOUT.to_model(joints)


def test_to_robot_orders_columns_and_adds_deltas_to_the_observed_position():
    state = np.array([0.5, 0.25], np.float32)  # elbow, shoulder
    actions = np.array([[0.75, 0.125], [1.0, -0.25]], np.float32)  # elbow absolute, shoulder delta
    robot = LAYOUT.to_robot(actions, state)  # shoulder, elbow
    assert robot.dtype == np.float32
    assert robot.tolist() == [[0.375, 0.75], [0.0, 1.0]]
    assert LAYOUT.from_robot(robot, state).tolist() == actions.tolist()


def test_round_trip_of_any_motion():
    rng = np.random.default_rng(1)
    state = rng.normal(size=2).astype(np.float32)
    actions = rng.normal(size=(50, 2)).astype(np.float32)
    back = LAYOUT.from_robot(LAYOUT.to_robot(actions, state), state)
    np.testing.assert_allclose(back, actions, atol=1e-6)


@pytest.mark.parametrize(
    ('actions', 'words'),
    [
        (np.ones((3, 3)), r'shape \(3, 3\), not \(rows, 2\)'),
        (np.ones(2), r'shape \(2,\)'),
        (np.ones((0, 2)), r'shape \(0, 2\)'),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), 'row 1 of elbow is nan'),
    ],
)
def test_bad_actions_are_named(actions, words):
    with pytest.raises(BadAction, match=words):
        LAYOUT.to_robot(actions.astype(np.float32), np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ('state', 'actions', 'kinds', 'words'),
    [
        (('elbwo', 'shoulder'), ('elbow', 'shoulder'), ('absolute',) * 2, "did you mean 'elbow'"),
        (('elbow',), ('elbow', 'sholder'), ('absolute',) * 2, "did you mean 'shoulder'"),
        (('elbow',), ('elbow', 'zzz'), ('absolute',) * 2, 'it has shoulder, elbow'),
        (('elbow',), ('elbow',), ('absolute',), "commands no 'shoulder'"),
        (('elbow',), ('elbow', 'elbow'), ('absolute',) * 2, "'elbow' is listed twice"),
        (('elbow',), ('elbow', 'shoulder'), ('absolute', 'delta'), "'shoulder' is not in the sta"),
        (('elbow',), ('elbow', 'shoulder'), ('absolute',), '2 actions but 1 action kinds'),
        (('elbow',), ('elbow', 'shoulder'), ('absolute', 'rel'), 'use absolute or delta'),
    ],
)
def test_a_layout_that_does_not_fit_the_robot_is_refused(state, actions, kinds, words):
    with pytest.raises(ConfigError, match=words):
        JointLayout(ROBOT, state, actions, kinds)
