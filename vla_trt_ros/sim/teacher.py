"""The scripted experts as a teacher whose every target follows from what a policy can see.

Meta-World's experts add a centimetre to the target of the moment before. Where the hand is stuck
the target runs away from it, and how far cannot be seen in any picture: a policy could not learn
it, and the expert itself stays stuck. The teacher leads the measured hand instead, by a distance
that grows with the expert's wish and ends at `LEAD`.

For push and pick-place the wish is our own: their experts hold the puck loosely, let it turn in
the claws and begin again, and after a slip they often do not end.
"""

from __future__ import annotations

import numpy as np

from vla_trt_ros.datatypes import Float32Array, Float64Array
from vla_trt_ros.sim.expert import ScriptedPolicy
from vla_trt_ros.sim.metaworld import MetaWorld

LEAD = 0.08
"""Farthest that a target is ahead of the hand on an axis, m: enough force for every task."""

GAIN = {'reach': 4.0, 'drawer-open': 2.0}
"""Lead per wish, where the expert asks for less than its task needs; 1 for all others."""


PUCK_TASKS = ('push', 'pick-place')
_PUCK_GAIN = 2.0
_ALIGNED, _HELD = 0.02, 0.035
"""Horizontal distance of hand and puck, m: to go down, and to have it between the claws."""
_GRASP_HEIGHT, _REACHED = 0.030, 0.048
"""Hand above puck, m: where the claws are sent, and from where on they close around it."""
_BESIDE = np.array([0.005, 0.0, 0.0])
"""Where the puck is held, from its middle, m: as Meta-World's experts do."""
_CLOSED_ON_PUCK = 0.62
"""Opening of the gripper, ratio, below which it has the puck."""


class Teacher:
    """Knows the answer: it sees where object and goal are. For data and labels, never a policy."""

    def __init__(self, env: MetaWorld) -> None:
        self._env = env
        self._expert = ScriptedPolicy(env)
        self._gain = GAIN.get(env.task, 1.0)
        self._wish = self._puck_wish if env.task in PUCK_TASKS else self._scripted_wish

    def target(self) -> Float64Array:
        """The next target for ``env.apply``, float64 [4]. The same state gives the same target."""
        lead, grip = self._wish()
        hand = self._env.observe().positions[:3]
        target = np.append(hand + np.clip(lead, -LEAD, LEAD), np.clip(grip, 0.0, 1.0))
        inside: Float64Array = np.clip(target, *self._env.limits)
        return inside

    def chunk(self, rows: int) -> Float32Array:
        """The targets of the next ``rows`` control steps if the teacher had the arm from here on:
        float32 [rows, 4]. The environment is left as it was.
        """
        targets = np.empty((rows, 4), np.float32)
        with self._env.imagine():
            for row in targets:
                target = self.target()
                row[:] = target
                self._env.apply(target)
        return targets

    def _scripted_wish(self) -> tuple[Float64Array, float]:
        """Lead of the hand, m, and the gripper's target, as Meta-World's expert wants them."""
        wish = self._expert.action()
        return LEAD * np.clip(self._gain * wish[:3], -1.0, 1.0), (1.0 - float(wish[3])) / 2.0

    def _puck_wish(self) -> tuple[Float64Array, float]:
        """Above the puck, down, close, to the goal: each found from where things are now."""
        seen = self._env.full_observation
        hand, puck, goal = seen[:3], seen[4:7] - _BESIDE, seen[-3:]
        opening = float(self._env.observe().positions[3])
        aside = float(np.linalg.norm(hand[:2] - puck[:2]))
        above = hand[2] - puck[2]
        if aside < _HELD and above < _REACHED + 0.012 * (opening < _CLOSED_ON_PUCK):
            if opening > _CLOSED_ON_PUCK:
                return np.zeros(3), 0.0
            way = goal - seen[4:7]
            if self._env.task == 'push' and np.linalg.norm(way[:2]) > 0.02:
                way = way + _up(0.015)  # a little lifted, it does not catch on the table
            return _PUCK_GAIN * way, 0.0
        if aside < _ALIGNED:
            return _PUCK_GAIN * (puck + _up(_GRASP_HEIGHT) - hand), 1.0
        # Over the puck first: from the side the claws would knock it over.
        height = 0.1 if aside > 2 * _ALIGNED or above < 0.06 else above
        return _PUCK_GAIN * (puck + _up(height) - hand), 1.0


def _up(height: float) -> Float64Array:
    return np.array([0.0, 0.0, height])
