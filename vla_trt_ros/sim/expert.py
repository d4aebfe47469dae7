"""Meta-World's scripted experts as joint targets: they see everything, and show how it is done."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from vla_trt_ros.datatypes import Float64Array
from vla_trt_ros.sim.metaworld import MetaWorld

from metaworld.policies import ENV_POLICY_MAP  # isort: skip  # after OpenGL was chosen


class ScriptedPolicy:
    """Meta-World's own policy for one environment's task, in Meta-World's own actions."""

    def __init__(self, env: MetaWorld) -> None:
        self._env = env
        policies: dict[str, Any] = ENV_POLICY_MAP
        self._policy = policies[f'{env.task}-v3']()

    def action(self) -> Float64Array:
        """What it wants now, float64 [4]: moves in steps of ``action_scale``, and an effort that
        closes the gripper. Gains are high on purpose: the caller cuts what is beyond 1.
        """
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            # A copy: some of them (door-open) write into what they are given.
            wish = self._policy.get_action(self._env.full_observation.copy())
        return np.asarray(wish, dtype=np.float64)


class Expert:
    """The scripted expert of one environment's task."""

    def __init__(self, env: MetaWorld) -> None:
        self._env = env
        self._policy = ScriptedPolicy(env)

    def target(self) -> Float64Array:
        """The next target for ``env.apply``, float64 [4]; the expert's action is exactly kept."""
        action = np.clip(self._policy.action(), -1.0, 1.0)
        target = self._env.hold_target()
        target[:3] += action[:3] * self._env.action_scale
        target[3] = (1.0 - action[3]) / 2.0
        return target
