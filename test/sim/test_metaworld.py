"""The robot that the simulator shows: deterministic, limited, and able to do its tasks."""

import numpy as np
import pytest

from vla_trt_ros.config import load_robot
from vla_trt_ros.errors import BackendError, BadAction, ConfigError
from vla_trt_ros.sim.gl import choose_gl

try:
    choose_gl()
except BackendError as error:
    pytest.skip(str(error), allow_module_level=True)

from vla_trt_ros.sim.env import Environment, camera_frame
from vla_trt_ros.sim.expert import Expert
from vla_trt_ros.sim.metaworld import ARM_JOINTS, JOINT_NAMES, MetaWorld
from vla_trt_ros.sim.prompts import BENCHMARK_TASKS

import mujoco  # isort: skip  # after OpenGL was chosen


@pytest.fixture
def env():
    env = MetaWorld('pick-place', width=96, height=64)
    env.reset(3)
    yield env
    env.close()


def test_it_is_an_environment_with_the_joints_of_the_robot_file(env):
    assert isinstance(env, Environment)
    robot = load_robot('metaworld')
    assert env.joint_names == robot.joint_names
    sample = env.observe(stamp_ns=7)
    assert sample.names == JOINT_NAMES + ARM_JOINTS
    assert sample.stamp_ns == 7
    assert sample.positions.shape == sample.velocities.shape == (11,)
    for joint, low, high in zip(robot.joints, *env.limits, strict=True):
        assert joint.lower < high
        assert joint.upper > low


def test_the_same_seed_gives_the_same_pictures_and_the_same_motion(env):
    def episode():
        env.reset(3)
        first = env.render()
        for _ in range(10):
            env.apply(Expert(env).target())
        return first, env.render(), env.full_observation

    before = episode()
    env.reset(4)
    env.apply(np.array([0.2, 0.8, 0.3, 0.0]))
    other = env.render()
    after = episode()
    for a, b in zip(before[:2], after[:2], strict=True):
        assert np.array_equal(a['base'], b['base'])
        assert np.array_equal(a['wrist'], b['wrist'])
    assert np.array_equal(before[2], after[2])
    assert not np.array_equal(before[0]['base'], other['base'])


def test_the_first_picture_shows_the_goal_of_this_episode():
    """Meta-World moves the marker after its last update of positions: a stale one misleads."""
    env = MetaWorld('push', width=96, height=96)
    for seed in (3, 5):
        env.reset(seed)
        first = env.render()
        assert np.array_equal(env._env.data.site('goal').xpos, env._env._target_pos)
        mujoco.mj_forward(env._env.model, env._env.data)
        assert np.array_equal(env.render()['wrist'], first['wrist'])
    env.close()


def test_the_cameras_show_different_things_and_are_upright(env):
    images = env.render()
    assert set(images) == {'base', 'wrist'}
    for image in images.values():
        assert image.shape == (64, 96, 3)
        assert image.dtype == np.uint8
        assert image.std() > 10
    assert not np.array_equal(images['base'], images['wrist'])
    # The arm hangs down from above: red in the upper half, next to none in the lower.
    red = images['base'].astype(int)
    red = (red[..., 0] > 90) & (red[..., 1] < 60)
    assert red[:32].sum() > 5 * max(1, red[32:].sum())
    assert env.render()['base'] is not images['base']


def test_up_in_the_wrist_picture_is_away_from_the_base():
    env = MetaWorld('push', width=96, height=96)
    env.reset(3)
    wrist = env.render()['wrist'].astype(int)
    goal = np.argwhere((wrist[..., 1] > 120) & (wrist[..., 0] < 60) & (wrist[..., 2] < 60))
    puck = np.argwhere((wrist[..., 0] > 50) & (wrist[..., 1] < 20) & (wrist[..., 2] < 20))
    positions = env.full_observation
    assert positions[37] > positions[5] + 0.1  # the goal's y is beyond the puck's
    assert goal[:, 0].mean() < puck[:, 0].mean() - 10
    env.close()


@pytest.mark.parametrize('axis', [0, 1, 2])
@pytest.mark.parametrize('way', [-0.05, 0.05])
def test_the_hand_goes_where_it_is_sent_and_stays(env, axis, way):
    for _ in range(20):
        env.apply(env.hold_target())
    start = env.observe().positions[:3]
    target = env.hold_target()
    target[axis] += way
    env.apply(target)
    assert np.sign(env.observe().velocities[axis]) == np.sign(way)
    for _ in range(40):
        env.apply(target)
    moved = env.observe().positions[:3] - start
    assert moved[axis] == pytest.approx(way, abs=0.004)
    assert np.abs(np.delete(moved, axis)).max() < 0.004
    assert np.abs(env.observe().velocities[:4]).max() < 0.01


def test_the_gripper_closes_opens_and_is_read_as_a_ratio(env):
    target = env.hold_target()
    assert env.observe().positions[3] == pytest.approx(1.0, abs=0.02)
    for ratio in (0.0, 1.0):
        target[3] = ratio
        for _ in range(40):
            env.apply(target)
        assert env.observe().positions[3] == pytest.approx(ratio, abs=0.02)


def test_velocity_is_per_second_of_the_driving_clock(env):
    slow = MetaWorld('pick-place', control_rate=10.0)
    slow.reset(3)
    for each in (env, slow):
        target = each.hold_target()
        target[0] += 0.1
        for _ in range(5):
            each.apply(target)
    assert env.observe().velocities[0] == pytest.approx(2 * slow.observe().velocities[0])
    assert env.observe().velocities[0] > 0.05
    slow.close()


def test_a_target_out_of_reach_is_clipped_and_moves_one_step_at_most(env):
    low, high = env.limits
    for _ in range(120):
        before = env.hold_target()
        env.apply(np.array([9.0, -9.0, 9.0, 7.0]))
        after = env.hold_target()
        assert np.abs(after - before)[:3].max() <= env.action_scale + 1e-12
        assert (after >= low).all()
        assert (after <= high).all()
    assert after == pytest.approx([high[0], low[1], high[2], 1.0])


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_a_target_that_is_no_number_moves_nothing(env, bad):
    before = env.observe().positions
    with pytest.raises(BadAction, match=r'target of hand_z is .*nothing moves'):
        env.apply(np.array([0.0, 0.6, bad, 1.0]))
    assert env.steps == 0
    assert np.array_equal(env.observe().positions, before)


def test_a_target_of_the_wrong_length_is_refused(env):
    with pytest.raises(BadAction, match=r'shape \(3,\); one value each for hand_x, hand_y'):
        env.apply(np.array([0.0, 0.6, 0.2]))


@pytest.mark.parametrize('task', BENCHMARK_TASKS)
def test_the_expert_solves_each_task_through_position_targets(task):
    env = MetaWorld(task)
    for seed in (3, 4):
        env.reset(seed)
        assert not env.success
        expert = Expert(env)
        while not env.success and env.steps < 250:
            env.apply(expert.target())
        assert env.success, (task, seed)
    env.close()


def test_success_stays_until_the_next_reset():
    env = MetaWorld('reach')
    expert = Expert(env)
    while not env.success and env.steps < 250:
        env.apply(expert.target())
    away = np.array([-0.3, 0.45, 0.4, 1.0])
    for _ in range(60):
        env.apply(away)
    assert env.success
    env.reset(1)
    assert not env.success
    assert env.steps == 0
    env.close()


def test_an_episode_may_be_longer_than_meta_worlds():
    env = MetaWorld('reach')
    for _ in range(501):
        env.apply(env.hold_target())
    assert env.steps == 501
    env.close()


def test_the_experts_reach_is_within_the_robots_limits():
    """What the experts do must be allowed by the robot file, or a policy cannot learn it."""
    joints = load_robot('metaworld').joints
    for task in BENCHMARK_TASKS:
        env = MetaWorld(task)
        env.reset(21)
        expert = Expert(env)
        while not env.success and env.steps < 250:
            target = expert.target()
            env.apply(target)
            reached = env.hold_target()
            for joint, value in zip(joints, reached, strict=True):
                assert joint.lower <= value <= joint.upper, (task, joint.name, value)
        env.close()


def test_one_environment_does_not_spoil_anothers_pictures(env):
    before = env.render()['base']
    other = MetaWorld('reach', width=96, height=64)
    other.render()
    other.close()
    assert np.array_equal(env.render()['base'], before)
    dropped = MetaWorld('reach', width=96, height=64)
    dropped.render()
    env.render()
    del dropped
    assert np.array_equal(env.render()['base'], before)


def test_views_are_chosen_by_name():
    near = MetaWorld('reach', width=64, height=64)
    far = MetaWorld('reach', width=64, height=64, view='corner2')
    assert not np.array_equal(near.render()['base'], far.render()['base'])
    assert np.array_equal(near.render()['wrist'], far.render()['wrist'])
    near.close()
    far.close()
    with pytest.raises(ConfigError, match="base view 'corner9' is none of near, corner"):
        MetaWorld('reach', view='corner9')


@pytest.mark.parametrize(('width', 'height'), [(0, 224), (641, 480), (640, 481), (224, 8)])
def test_a_picture_size_it_cannot_draw_is_refused(width, height):
    with pytest.raises(ConfigError, match=f'image size {width} x {height} is outside'):
        MetaWorld('reach', width=width, height=height)


def test_an_unknown_task_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'reach'"):
        MetaWorld('reech')


def test_a_picture_becomes_the_frame_a_driver_would_send():
    image = np.zeros((2, 3, 3), np.uint8)
    image[1, 2] = (10, 20, 30)
    rgb = camera_frame(image, 5, 'cam')
    bgr = camera_frame(image, 5, 'cam', 'bgr8')
    assert (rgb.height, rgb.width, rgb.step, rgb.stamp_ns, rgb.encoding) == (2, 3, 9, 5, 'rgb8')
    assert rgb.data[-3:].tolist() == [10, 20, 30]
    assert bgr.data[-3:].tolist() == [30, 20, 10]
    assert bgr.encoding == 'bgr8'
