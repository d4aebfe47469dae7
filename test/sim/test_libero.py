"""LIBERO as a robot: its arithmetic everywhere; the real thing where hf-libero is installed."""

import importlib.util
import math

import numpy as np
import pytest

from vla_trt_ros.config import load_robot
from vla_trt_ros.errors import BackendError, BadAction, ConfigError, VlaError
from vla_trt_ros.sim import libero, libero_setup
from vla_trt_ros.sim.env import Environment

ROBOT = load_robot('libero')


def test_names_are_the_robot_files():
    assert ROBOT.joint_names == libero.INPUTS
    assert ROBOT.state_names == libero.READINGS
    assert set(libero.CAMERAS) == set(ROBOT.cameras)


@pytest.mark.parametrize(
    ('quaternion', 'expected'),
    [
        ((0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0, 1.0 + 1e-9), (0.0, 0.0, 0.0)),
        ((0.0, 0.0, math.sin(0.25), math.cos(0.25)), (0.0, 0.0, 0.5)),
        ((1.0, 0.0, 0.0, 0.0), (math.pi, 0.0, 0.0)),
        # the same quarter turn about y, written both ways
        ((0.0, math.sqrt(0.5), 0.0, math.sqrt(0.5)), (0.0, math.pi / 2, 0.0)),
        ((0.0, -math.sqrt(0.5), 0.0, -math.sqrt(0.5)), (0.0, -1.5 * math.pi, 0.0)),
    ],
)
def test_axis_angle(quaternion, expected):
    assert libero.axis_angle(np.array(quaternion)) == pytest.approx(expected, abs=1e-12)


def test_axis_angle_turns_as_the_quaternion_does():
    rng = np.random.default_rng(4)
    for _ in range(20):
        q = rng.normal(size=4)
        q /= np.linalg.norm(q)
        x, y, z, w = q
        point = rng.normal(size=3)
        u = np.array([x, y, z])
        turned = point + 2 * np.cross(u, np.cross(u, point) + w * point)
        v = libero.axis_angle(q)
        angle = np.linalg.norm(v)
        k = v / angle
        rodrigues = (
            point * math.cos(angle)
            + np.cross(k, point) * math.sin(angle)
            + k * (k @ point) * (1 - math.cos(angle))
        )
        assert rodrigues == pytest.approx(turned, abs=1e-9)


def test_half_turn_moves_every_corner_to_the_opposite_one():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    turned = libero.half_turn(image)
    assert turned[0, 0].tolist() == image[1, 2].tolist()
    assert turned[0, 2].tolist() == image[1, 0].tolist()
    assert turned.flags.c_contiguous
    image[:] = 0
    assert turned.any(), 'a copy'


def test_inputs_are_clipped_and_checked():
    given = np.array([0.5, -3.0, 2.0, 0.0, 1.0, -1.0, 1.5])
    assert libero.check_inputs(given).tolist() == [0.5, -1.0, 1.0, 0.0, 1.0, -1.0, 1.0]
    with pytest.raises(BadAction, match=r'shape \(4,\); one value each for delta_x, delta_y'):
        libero.check_inputs(np.zeros(4))
    with pytest.raises(BadAction, match='target of turn_z is nan: nothing moves'):
        libero.check_inputs(np.array([0, 0, 0, 0, 0, np.nan, 0]))


def test_a_suite_is_no_task():
    with pytest.raises(ConfigError, match='is a suite; choose one task, such as libero_10/0'):
        libero.Libero('libero_10')


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    real = importlib.util.find_spec

    def without_robosuite(name, package=None):
        return None if name == 'robosuite' else real('json', package)

    monkeypatch.setattr(importlib.util, 'find_spec', without_robosuite)
    with pytest.raises(BackendError, match='package robosuite: run `pip install .*libero'):
        libero_setup.import_libero()


@pytest.fixture(scope='module')
def env():
    """One task in initial state 3."""
    if importlib.util.find_spec('libero') is None:
        pytest.skip('needs LIBERO in an environment of its own: docs/howto/libero.md')
    try:
        made = libero.Libero('libero_spatial/0')
    except VlaError as error:
        pytest.skip(str(error))
    made.reset(3)
    yield made
    made.close()


def same(a, b):
    return all((a[view] == b[view]).all() for view in libero.CAMERAS)


@pytest.mark.slow
def test_it_is_an_environment(env):
    assert isinstance(env, Environment)
    assert env.prompt.startswith('pick up the black bowl between the plate and the ramekin')
    sample = env.observe(5)
    assert (sample.stamp_ns, sample.names) == (5, libero.READINGS)
    for value, reading in zip(sample.positions, ROBOT.readings, strict=True):
        assert reading.lower <= value <= reading.upper, reading.name


@pytest.mark.slow
def test_the_same_state_and_inputs_give_the_same_pictures(env):
    seen = []
    for number in (3, 4, 3):
        env.reset(number)
        assert (env.steps, env.success) == (0, False)
        for _ in range(5):
            env.apply(np.array([0.5, 0.0, -0.5, 0.0, 0.0, 0.1, 1.0]))
        assert env.steps == 5
        assert env.hold_target().tolist() == [0.0] * 6 + [1.0]
        seen.append((env.render(), env.observe().positions))
    assert same(seen[0][0], seen[2][0])
    assert (seen[0][1] == seen[2][1]).all()
    assert not same(seen[0][0], seen[1][0])


@pytest.mark.slow
def test_each_input_moves_what_it_is_named_after(env):
    def moved(index, value):
        env.reset(3)
        before = env.observe().positions
        inputs = env.hold_target()
        inputs[index] = value
        for _ in range(15):
            env.apply(inputs)
        return env.observe().positions - before

    for axis in range(3):
        change = moved(axis, 0.3)[:3]
        assert change[axis] > 0.03
        assert abs(np.delete(change, axis)).max() < 0.02
    closing = moved(6, 1.0)
    assert closing[6] < -0.02, 'gripper 1 closes'


@pytest.mark.slow
def test_success_is_liberos_word_and_ends_with_the_episode(env):
    env.reset(0)
    data = env._env.env.sim.data
    bowl = data.get_joint_qpos('akita_black_bowl_1_joint0').copy()
    bowl[:3] = data.get_joint_qpos('plate_1_joint0')[:3] + np.array([0.0, 0.0, 0.03])
    env.apply(env.hold_target())
    assert not env.success
    data.set_joint_qpos('akita_black_bowl_1_joint0', bowl)
    for _ in range(10):
        env.apply(env.hold_target())
    assert env.success
    env.reset(0)
    assert not env.success


@pytest.mark.slow
def test_bad_inputs_and_states_are_refused_and_nothing_moves(env):
    env.reset(0)
    before = env.observe().positions
    with pytest.raises(BadAction):
        env.apply(np.full(7, np.inf))
    assert (env.observe().positions == before).all()
    assert env.steps == 0
    with pytest.raises(ConfigError, match='seed 50: libero_spatial/0 has initial states 0 to 49'):
        env.reset(50)


@pytest.mark.slow
def test_pictures_are_those_that_libero_draws_at_every_step(env):
    """Drawn late and on demand, and yet robosuite's own, bit for bit."""
    inputs = np.array([0.5, 0.0, -0.5, 0.0, 0.0, 0.1, -1.0])
    env.reset(3)
    for _ in range(3):
        env.apply(inputs)
    ours, readings = env.render(), env.observe().positions
    env.close()
    theirs, states = libero._make('libero_spatial/0', libero.SIZE, libero.SIZE)
    try:
        theirs.seed(libero.SCENE_SEED)
        theirs.reset()
        theirs.set_init_state(states[3])
        for _ in range(libero.SETTLE_STEPS):
            theirs.step([0.0] * 6 + [-1.0])
        for _ in range(3):
            seen = theirs.step(inputs.tolist())[0]
    finally:
        theirs.close()
    for view, camera in libero.CAMERAS.items():
        assert (ours[view] == libero.half_turn(seen[f'{camera}_image'])).all()
    assert (readings[:3] == seen['robot0_eef_pos']).all()
    assert (readings[6:] == seen['robot0_gripper_qpos']).all()
