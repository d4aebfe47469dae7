"""Episodes to learn from: what the cameras saw, and what the teacher would have done there.

Whoever has the arm - the teacher itself, disturbed or not, or a policy that is still learning -
each frame's label is the teacher's: the chunk that it would command from that very state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla_trt_ros.datatypes import Float32Array, Float64Array, Uint8Array
from vla_trt_ros.sim.disturbance import Disturbance
from vla_trt_ros.sim.metaworld import MetaWorld
from vla_trt_ros.sim.prompts import prompts_for
from vla_trt_ros.sim.teacher import Teacher

ROWS = 10
"""Rows of a label, as the nano policy's horizon."""
AFTER_SUCCESS = 8
"""Frames kept after success: what to do when it is done."""

Driver = Callable[[dict[str, Uint8Array], Float32Array], Float64Array]
"""Pictures and state [4] -> the next targets [N, 4], of which all N are executed."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One observation and its label. Positions in m, the gripper as a ratio, all absolute."""

    images: dict[str, Uint8Array]
    """'base' and 'wrist' -> uint8 [H, W, 3]."""
    state: Float32Array
    """float32 [4]: hand_x, hand_y, hand_z, gripper."""
    label: Float32Array
    """float32 [ROWS, 4]: the teacher's next targets; row 0 is its target for this moment."""
    executed: Float32Array
    """float32 [4]: the target that the arm really got."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One attempt at a task."""

    task: str
    prompt: str
    seed: int
    success: bool
    steps: int
    """Control steps until the end, of which every ``stride``-th has a frame."""
    frames: tuple[Frame, ...]


def record_episode(
    env: MetaWorld,
    *,
    seed: int,
    noise: float = 0.0,
    driver: Driver | None = None,
    max_steps: int = 250,
    stride: int = 1,
    phase: int = 0,
) -> Episode:
    """Reset ``env`` to ``seed`` and let the teacher, or ``driver``, work until it is done.

    ``noise`` is the level of the `Disturbance` of what is executed; labels are never disturbed.
    Frames are taken at every ``stride``-th step, from ``phase`` on. Everything random follows from
    ``seed``, as does the phrasing of the prompt.
    """
    generator = np.random.default_rng((seed, 77))
    phrases = prompts_for(env.task)
    prompt = phrases[int(generator.integers(len(phrases)))]
    teacher = Teacher(env)
    disturbance = Disturbance(noise, generator)
    env.reset(seed)
    frames: list[Frame] = []
    planned: list[Float64Array] = []
    left = AFTER_SUCCESS
    while env.steps < max_steps and left > 0:
        keep = env.steps % stride == phase
        positions = env.observe().positions
        state = positions[:4].astype(np.float32)
        images = env.render() if keep or (driver and not planned) else {}
        if driver and not planned:
            planned = list(driver(images, state))
        target = planned.pop(0) if planned else teacher.target()
        executed = disturbance.alter(target, positions[:3])
        if keep:
            label = teacher.chunk(ROWS)
            frames.append(Frame(images, state, label, executed.astype(np.float32)))
        env.apply(executed)
        left -= env.success
    return Episode(env.task, prompt, seed, env.success, env.steps, tuple(frames))
