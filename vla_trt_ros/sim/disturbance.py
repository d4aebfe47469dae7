"""Pushes and slips that take an arm off its way, so that data show how to come back."""

from __future__ import annotations

import numpy as np

from vla_trt_ros.datatypes import Float64Array

JITTER = 0.02
"""Standard deviation of a target at level 1, m on each axis."""
PUSH_EVERY, PUSH_STEPS, PUSH_LEAD = 30, (4, 12), 0.08
"""At level 1: steps between pushes on average, steps that one lasts, m it leads the hand by."""
SLIP_EVERY, SLIP_STEPS = 80, (3, 8)
"""At level 1: steps between slips of the gripper on average, and how many steps one lasts."""


class Disturbance:
    """Alters targets at random; ``level`` 0 alters nothing, 1 a lot."""

    def __init__(self, level: float, generator: np.random.Generator) -> None:
        self._level = level
        self._generator = generator
        self._push = np.zeros(3)
        self._push_left = self._slip_left = 0
        self._grip = 0.0

    def alter(self, target: Float64Array, hand: Float64Array) -> Float64Array:
        """What is executed instead of ``target`` [4], where the hand is at ``hand`` [3], m."""
        random, level = self._generator, self._level
        if level == 0.0:
            return target
        altered = target.copy()
        altered[:3] += random.normal(0.0, JITTER * level, 3)
        if self._push_left == 0 and random.random() < level / PUSH_EVERY:
            direction = random.normal(size=3)
            self._push = direction / np.linalg.norm(direction) * PUSH_LEAD
            self._push_left = int(random.integers(*PUSH_STEPS))
        if self._push_left:
            self._push_left -= 1
            altered[:3] = hand + self._push
        if self._slip_left == 0 and random.random() < level / SLIP_EVERY:
            self._grip = float(random.random() < 0.5)
            self._slip_left = int(random.integers(*SLIP_STEPS))
        if self._slip_left:
            self._slip_left -= 1
            altered[3] = self._grip
        return altered
