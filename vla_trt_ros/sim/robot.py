"""A simulated robot as the network sees it: a controller in front, episodes behind, no ROS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.sim.env import Environment
from vla_trt_ros.sim.trajectory_controller import (
    PositionController,
    Trajectory,
    TrajectoryController,
)

LINGER_STEPS = 10
"""An episode goes on for this long after success, so that those who watch see it."""


class SimulatedRobot:
    """One environment behind one controller, reset by itself when an episode is over.

    ``make`` builds the environment of a task. Episode k runs on seed ``seed`` + k. An episode ends
    after ``episode_steps`` control steps, or shortly after success; 0 never ends one. ConfigError:
    an unknown task, or negative numbers.
    """

    def __init__(
        self,
        make: Callable[[str], Environment],
        task: str,
        *,
        controller: Literal['trajectory', 'position'] = 'trajectory',
        seed: int = 0,
        episode_steps: int = 0,
    ) -> None:
        if episode_steps < 0:
            raise ConfigError(f'episode_steps {episode_steps} must not be negative.')
        check_seed(seed)
        self._make = make
        self._kind = controller
        self._first_seed = seed
        self._episode_steps = episode_steps
        self._since_success = 0
        self.episodes = 0
        """Episodes ended since the start or the last switch of task."""
        self.successes = 0
        """How many of them were solved."""
        self.env = make(task)
        self._begin()

    def switch_task(self, task: str, seed: int | None = None) -> None:
        """Begin ``task`` on ``seed``, the same first seed again where None, and count from there.

        The arm is home again and holds until it is commanded. ConfigError: no such task, or a
        negative seed; nothing changes.
        """
        check_seed(self._first_seed if seed is None else seed)
        if task != self.env.task:
            env = self._make(task)
            self.env.close()
            self.env = env
        if seed is not None:
            self._first_seed = seed
        self.episodes = self.successes = 0
        self._begin()

    def offer_trajectory(self, trajectory: Trajectory, now_ns: int) -> None:
        """Give the controller a trajectory. BadAction says why it is refused."""
        assert isinstance(self._controller, TrajectoryController)
        self._controller.accept(trajectory, now_ns)

    def offer_positions(self, positions: list[float]) -> None:
        """Give the controller a row of positions. BadAction says why it is refused."""
        assert isinstance(self._controller, PositionController)
        self._controller.accept(positions)

    def step(self, now_ns: int) -> None:
        """Advance one control step toward the target of this moment; begin a new episode if the
        last one is over.
        """
        if self._over():
            self.episodes += 1
            self.successes += self.env.success
            self._begin()
        self.env.apply(self._controller.sample(now_ns))
        self._since_success += self.env.success

    def close(self) -> None:
        """Free the environment."""
        self.env.close()

    def _over(self) -> bool:
        if self._episode_steps == 0:
            return False
        return self._since_success > LINGER_STEPS or self.env.steps >= self._episode_steps

    def _begin(self) -> None:
        """Reset, and forget the command: it was meant for the episode before."""
        self.env.reset(self._first_seed + self.episodes)
        self._since_success = 0
        target = self.env.hold_target()
        controller = TrajectoryController if self._kind == 'trajectory' else PositionController
        self._controller = controller(self.env.joint_names, target)


def check_seed(seed: int) -> None:
    """ConfigError for a negative seed."""
    if seed < 0:
        raise ConfigError(f'seed {seed} must not be negative.')
