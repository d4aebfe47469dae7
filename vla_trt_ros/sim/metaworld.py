"""Meta-World as a robot: the Sawyer's hand as four joints, two cameras, one task at a time.

Meta-World moves a mocap body that drags the hand along, at most 1 cm an axis in a control step of
12.5 ms of physics, and drives the gripper with an effort. Both become joints here: hand_x, hand_y
and hand_z are the wanted hand position in metres; gripper is 0 closed to 1 open. A gripper target
of 1 opens and 0 closes with full effort, 0.5 lets go: an object is gripped by a target near 0, not
by the width it was gripped at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np

from vla_trt_ros.datatypes import Float64Array, JointSample, Uint8Array
from vla_trt_ros.errors import BadAction
from vla_trt_ros.sim.prompts import prompt_for, task_name
from vla_trt_ros.sim.rendering import Cameras, check_size  # chooses OpenGL before Meta-World
from vla_trt_ros.sim.views import WRIST_VIEW, base_view

import mujoco  # type: ignore[import-untyped]  # isort: skip
from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # isort: skip

JOINT_NAMES = ('hand_x', 'hand_y', 'hand_z', 'gripper')
ARM_JOINTS = tuple(f'right_j{i}' for i in range(7))
"""The Sawyer's own joints, for display."""

# Metres between the claws, closed on nothing and open.
_CLAWS_CLOSED, _CLAWS_OPEN = 0.030, 0.100

GOAL_RGBA = (0.0, 0.8, 0.0, 1.0)
"""Meta-World gives the goal of reach, push and pick-place a colour each, which would tell the task
to a policy that never reads its prompt. Here all goals are green.
"""


class MetaWorld:
    """One task of MT50 as an ``Environment``.

    ``task`` is a name with or without '-v3', ``view`` a key of ``views.BASE_VIEWS`` for the base
    camera; ConfigError for an unknown one. ``width`` and ``height`` of the pictures are pixels.
    ``control_rate`` is how many control steps the driving clock sees in a second, Hz: it only
    scales the velocities that ``observe`` reports.
    """

    def __init__(
        self,
        task: str,
        *,
        width: int = 224,
        height: int = 224,
        view: str = 'near',
        control_rate: float = 20.0,
    ) -> None:
        self.task = task_name(task)
        self.prompt = prompt_for(task)
        self.joint_names = JOINT_NAMES
        self._views = {'base': base_view(view), 'wrist': WRIST_VIEW}
        check_size(width, height)
        self._size = (width, height)
        self._control_rate = control_rate
        self._env = _make(self.task)
        self._cameras: Cameras | None = None
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin an episode: object and goal placed at random by ``seed`` alone."""
        self._env.seed(seed)
        observation, _ = self._env.reset()
        # Meta-World moves the goal's marker last: without this the first picture shows it where
        # it was before.
        mujoco.mj_forward(self._env.model, self._env.data)
        self._full_observation: Float64Array = observation
        self.success = False
        self.steps = 0
        self._gripper = 1.0  # a reset leaves it open
        self._positions = self._read()
        self._velocities = np.zeros_like(self._positions)

    def observe(self, stamp_ns: int = 0) -> JointSample:
        """Hand position (m), gripper opening (ratio) and the seven arm joints (rad), with
        velocities over the last control step in units per second of the driving clock.
        """
        return JointSample(
            stamp_ns=stamp_ns,
            receive_ns=stamp_ns,
            names=JOINT_NAMES + ARM_JOINTS,
            positions=self._positions.copy(),
            velocities=self._velocities.copy(),
        )

    def render(self) -> dict[str, Uint8Array]:
        """'base' and 'wrist' -> uint8 [height, width, 3]. The first call makes the OpenGL context,
        which belongs to the calling thread from then on.
        """
        if self._cameras is None:
            width, height = self._size
            self._cameras = Cameras(self._env.model, self._views, width=width, height=height)
        return self._cameras.render(self._env.data)

    def apply(self, target: Float64Array) -> None:
        """Advance 12.5 ms of physics toward ``target``, float64 [4] in the order of
        ``joint_names``. The hand is clipped to the task's reach and moves 1 cm an axis at most.
        """
        action = self._action(target)
        self._gripper = (1.0 - float(action[3])) / 2.0
        self._full_observation, _, _, _, info = self._env.step(action)
        self.steps += 1
        self.success = self.success or bool(info['success'])
        before, self._positions = self._positions, self._read()
        self._velocities = (self._positions - before) * self._control_rate

    @contextmanager
    def imagine(self) -> Iterator[None]:
        """Whatever is applied inside the block is undone when it ends, to the last bit.

        For those who ask what an expert would do from here; not to be nested.
        """
        env = self._env
        data = copy(env.data)
        ours = {name: getattr(self, name) for name in _CHANGING}
        theirs = {
            name: value.copy() if isinstance(value, np.ndarray) else value
            for name, value in vars(env).items()
            if value is None or isinstance(value, (np.ndarray, bool, int, float, tuple))
        }
        try:
            yield
        finally:
            env.data = data
            vars(env).update(theirs)
            for name, value in ours.items():
                setattr(self, name, value)

    def hold_target(self) -> Float64Array:
        """Where the hand is being sent now, and a gripper that keeps its effort."""
        target = np.empty(4)
        target[:3] = self._mocap
        target[3] = self._gripper
        return target

    @property
    def limits(self) -> tuple[Float64Array, Float64Array]:
        """Lowest and highest target, float64 [4] each: the task's reach."""
        env = self._env
        return np.append(env.mocap_low, 0.0), np.append(env.mocap_high, 1.0)

    @property
    def action_scale(self) -> float:
        """Farthest that a control step moves an axis of the hand, m."""
        return float(self._env.action_scale)

    @property
    def full_observation(self) -> Float64Array:
        """Meta-World's own observation, float64 [39], with the positions of object and goal: for
        scripted experts, never for a policy.
        """
        return self._full_observation

    @property
    def model(self) -> mujoco.MjModel:
        """MuJoCo's model of the scene: to look at, never to change."""
        return self._env.model

    @property
    def data(self) -> mujoco.MjData:
        """MuJoCo's state of it. Ask anew each time: `imagine` puts another in its place."""
        return self._env.data

    def close(self) -> None:
        """Free the renderer and the model."""
        if self._cameras is not None:
            self._cameras.close()
            self._cameras = None
        self._env.close()

    @property
    def _mocap(self) -> Float64Array:
        position: Float64Array = self._env.data.mocap_pos[0]
        return position

    def _action(self, target: Float64Array) -> Float64Array:
        target = np.asarray(target, dtype=np.float64)
        if target.shape != (len(JOINT_NAMES),):
            raise BadAction(
                f'target has shape {target.shape}; one value each for {", ".join(JOINT_NAMES)}.'
            )
        if not np.isfinite(target).all():
            bad = JOINT_NAMES[int(np.flatnonzero(~np.isfinite(target))[0])]
            raise BadAction(f'target of {bad} is {target[JOINT_NAMES.index(bad)]}: nothing moves.')
        target = np.clip(target, *self.limits)
        action = np.empty(4)
        action[:3] = (target[:3] - self._mocap) / self.action_scale
        action[3] = 1.0 - 2.0 * target[3]
        return np.clip(action, -1.0, 1.0)

    def _read(self) -> Float64Array:
        data = self._env.data
        claws = np.linalg.norm(data.body('rightclaw').xpos - data.body('leftclaw').xpos)
        opening = (claws - _CLAWS_CLOSED) / (_CLAWS_OPEN - _CLAWS_CLOSED)
        arm = [float(data.joint(name).qpos[0]) for name in ARM_JOINTS]
        return np.array([*data.body('hand').xpos, np.clip(opening, 0.0, 1.0), *arm])


# What `apply` replaces, never alters in place.
_CHANGING = ('_full_observation', 'success', 'steps', '_gripper', '_positions', '_velocities')


def _make(task: str) -> Any:
    env = ALL_V3_ENVIRONMENTS[f'{task}-v3']()
    # What Meta-World's benchmarks set through pickled tasks: a goal that the scripted expert may
    # see, and object and goal drawn anew from the seeded generator at each reset.
    env._partially_observable = False
    del env.sawyer_observation_space
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env._set_task_called = True
    # Episodes end where the caller says; Meta-World would raise after 500 steps.
    env.max_path_length = sys.maxsize
    _paint_goal(env.model)
    return env


def _paint_goal(model: mujoco.MjModel) -> None:
    for i in range(model.nsite):
        if model.site(i).name == 'goal':
            model.site_rgba[i] = GOAL_RGBA
