"""Episodes and the controller in front of an environment, with an environment of a few lines."""

import numpy as np
import pytest

from vla_trt_ros.datatypes import JointSample
from vla_trt_ros.errors import BadAction, ConfigError
from vla_trt_ros.sim.env import Environment
from vla_trt_ros.sim.robot import LINGER_STEPS, SimulatedRobot
from vla_trt_ros.sim.trajectory_controller import Trajectory

S = 1_000_000_000


class Line:
    """One joint that goes where it is sent; solved at 5 and beyond."""

    joint_names = ('x',)
    prompt = 'go right'

    def __init__(self, task):
        if task == 'wrong':
            raise ConfigError("task 'wrong' is unknown")
        self.task = task
        self.seeds = []
        self.closed = False
        self.x, self.steps, self.success = 0.0, 0, False

    def reset(self, seed):
        self.seeds.append(seed)
        self.x, self.steps, self.success = float(seed), 0, False

    def observe(self, stamp_ns=0):
        return JointSample(stamp_ns, stamp_ns, ('x',), np.array([self.x]))

    def render(self):
        return {}

    def apply(self, target):
        self.x = float(target[0])
        self.steps += 1
        self.success = self.success or self.x >= 5.0

    def hold_target(self):
        return np.array([self.x])

    def close(self):
        self.closed = True


def go_to(x, stamp_ns=0):
    return Trajectory(stamp_ns, ('x',), np.array([1.0]), np.array([[x]]))


def test_the_stand_in_is_an_environment():
    assert isinstance(Line('a'), Environment)


def test_it_holds_until_told_and_then_follows():
    robot = SimulatedRobot(Line, 'a', seed=2)
    robot.step(0)
    assert robot.env.x == 2.0
    robot.offer_trajectory(go_to(4.0), S)
    robot.step(S + S // 2)
    assert robot.env.x == pytest.approx(3.0)
    robot.step(9 * S)
    assert robot.env.x == 4.0


def test_a_refused_command_leaves_it_as_it_was():
    robot = SimulatedRobot(Line, 'a', seed=2, controller='position')
    with pytest.raises(BadAction, match='NaN'):
        robot.offer_positions([float('nan')])
    robot.step(0)
    assert robot.env.x == 2.0
    robot.offer_positions([3.0])
    robot.step(0)
    assert robot.env.x == 3.0


def test_an_unsolved_episode_ends_after_its_steps_and_forgets_the_command():
    robot = SimulatedRobot(Line, 'a', seed=1, episode_steps=3)
    robot.offer_trajectory(go_to(3.0), S)
    for _ in range(3):
        robot.step(9 * S)
    assert (robot.env.x, robot.episodes) == (3.0, 0)
    robot.step(9 * S)
    assert (robot.env.x, robot.episodes, robot.successes) == (2.0, 1, 0)
    assert robot.env.seeds == [1, 2]


def test_a_solved_episode_lingers_and_counts():
    robot = SimulatedRobot(Line, 'a', episode_steps=1000, controller='position')
    robot.offer_positions([6.0])
    for _ in range(LINGER_STEPS + 1):
        robot.step(0)
        assert robot.episodes == 0
    robot.step(0)
    assert (robot.episodes, robot.successes) == (1, 1)
    assert not robot.env.success
    assert robot.env.x == 1.0


def test_without_episode_steps_it_never_resets():
    robot = SimulatedRobot(Line, 'a', controller='position')
    robot.offer_positions([6.0])
    for _ in range(100):
        robot.step(0)
    assert robot.env.seeds == [0]
    assert robot.env.success


def test_a_switch_of_task_closes_the_old_one_and_begins_anew():
    robot = SimulatedRobot(Line, 'a', seed=1, episode_steps=1, controller='position')
    robot.offer_positions([6.0])
    for _ in range(30):
        robot.step(0)
    assert robot.episodes > 0
    old = robot.env
    robot.switch_task('b')
    assert old.closed
    assert (robot.env.task, robot.env.seeds, robot.episodes, robot.successes) == ('b', [1], 0, 0)
    robot.step(0)
    assert robot.env.x == 1.0


def test_a_switch_to_a_seed_begins_that_episode_and_counts_on_from_it():
    robot = SimulatedRobot(Line, 'a', seed=1, episode_steps=2, controller='position')
    env = robot.env
    robot.offer_positions([6.0])
    robot.step(0)
    robot.switch_task('a', 3)
    assert robot.env is env  # the same task is reset, not made anew
    assert not env.closed
    assert (env.x, env.success, robot.episodes) == (3.0, False, 0)
    for _ in range(3):
        robot.step(0)  # nothing commands it: it holds, and episode 3 runs out
    assert (env.seeds, env.x) == ([1, 3, 4], 4.0)
    with pytest.raises(ConfigError, match='seed -1'):
        robot.switch_task('b', -1)
    assert robot.env.task == 'a'


def test_a_switch_to_a_task_that_is_none_changes_nothing():
    robot = SimulatedRobot(Line, 'a')
    with pytest.raises(ConfigError, match='unknown'):
        robot.switch_task('wrong')
    assert robot.env.task == 'a'
    assert not robot.env.closed


def test_negative_numbers_are_refused():
    with pytest.raises(ConfigError, match='seed -1'):
        SimulatedRobot(Line, 'a', seed=-1)
    with pytest.raises(ConfigError, match='episode_steps -5'):
        SimulatedRobot(Line, 'a', episode_steps=-5)
