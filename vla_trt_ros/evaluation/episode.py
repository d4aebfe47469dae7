"""One episode: the live path without ROS, in simulated time, so that a seed decides everything."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vla_trt_ros.datatypes import NS, ActionChunk, Float64Array, Uint8Array
from vla_trt_ros.errors import BadInput, ConfigError
from vla_trt_ros.pipeline import Pipeline
from vla_trt_ros.sim.env import Environment, camera_frame

DEFAULT_MAX_STEPS = 250

Watch = Callable[[Environment, Mapping[str, Uint8Array] | None], None]
"""Called before each control step with the pictures that the policy was just given, or None."""


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """How one episode went."""

    task: str
    seed: int
    num_steps: int
    """Denoise steps of every chunk."""
    prompt: str
    success: bool
    steps: int
    """Control steps until success, or all of them."""
    chunks: int
    seconds: float
    """Wall clock, first picture to last control step: rendering, inference, physics."""
    inference_ms: tuple[float, ...]
    """Each chunk's `Pipeline.tick`: frames and joints in, rows in the robot's joints out."""
    clamped: int = 0
    """Values that the robot file's joint limits cut."""
    error: str = ''
    """Why the episode was given up: it counts as failed."""


def run_episode(
    env: Environment,
    pipeline: Pipeline,
    *,
    seed: int,
    num_steps: int,
    prompt: str,
    max_steps: int = DEFAULT_MAX_STEPS,
    execute_rows: int = 5,
    delay_rows: int = 0,
    watch: Watch | None = None,
) -> EpisodeResult:
    """Run ``env`` from ``seed`` until success or ``max_steps`` control steps.

    Step k happens at simulated time k * step_dt. Every ``execute_rows`` steps the newest pictures
    and joint states become a chunk, whose row j is the target of the step j after them. A chunk
    comes into use ``delay_rows`` steps after its observation, as it does live, and rows of the one
    before it go on until then; before the first the robot is held where it stands. The policy's
    noise begins anew from ``seed``.

    Whatever goes wrong inside the episode (NaN, a picture that does not decode, an engine) makes
    it a failed one with ``error``. ConfigError where the request itself does not fit the policy.
    """
    check_rows(execute_rows, delay_rows, pipeline.policy.horizon)
    pipeline.set_num_steps(num_steps)
    pipeline.set_prompt(prompt)
    order = _columns(env, pipeline)
    loop = _Loop(env, pipeline, order, delay_rows)
    pipeline.reset()
    pipeline.policy.reseed(seed)
    error = ''
    begin = time.perf_counter()
    try:
        env.reset(seed)
        env.render()  # a scene's first picture makes the OpenGL context: not the loop's time
        begin = time.perf_counter()
        while env.steps < max_steps and not env.success:
            pictures = loop.observe() if env.steps % execute_rows == 0 else None
            if watch is not None:
                watch(env, pictures)
            env.apply(loop.target())
    except ConfigError:
        raise
    except Exception as fault:  # an episode that breaks is a failed one, told and counted
        error = f'step {env.steps}: {type(fault).__name__}: {fault}'
    return EpisodeResult(
        task=env.task,
        seed=seed,
        num_steps=num_steps,
        prompt=prompt,
        success=env.success and not error,
        steps=env.steps,
        chunks=len(loop.inference_ms),
        seconds=time.perf_counter() - begin,
        inference_ms=tuple(loop.inference_ms),
        clamped=loop.clamped,
        error=error,
    )


def check_rows(execute_rows: int, delay_rows: int, horizon: int) -> None:
    """ConfigError unless a chunk of ``horizon`` rows lasts until the next one is in use."""
    if execute_rows < 1:
        raise ConfigError(f'execute_rows {execute_rows}: one row at least.')
    if delay_rows < 0:
        raise ConfigError(f'delay_rows {delay_rows} is negative; 0 uses a chunk at once.')
    if execute_rows + delay_rows > horizon:
        raise ConfigError(
            f'execute_rows {execute_rows} after delay_rows {delay_rows} need '
            f'{execute_rows + delay_rows} rows; a chunk of this policy has {horizon}.'
        )


class _Loop:
    """Chunks on their way and in use, for one episode."""

    def __init__(
        self, env: Environment, pipeline: Pipeline, order: list[int], delay_rows: int
    ) -> None:
        self._env = env
        self._pipeline = pipeline
        self._order = order
        self._delay = delay_rows
        self._coming: deque[tuple[int, ActionChunk]] = deque()
        self._begun = 0
        self._chunk: ActionChunk | None = None
        self.inference_ms: list[float] = []
        self.clamped = 0

    def observe(self) -> dict[str, Uint8Array]:
        """What the robot sees now, as a chunk that comes into use after the delay."""
        env, pipeline = self._env, self._pipeline
        # Never stamp 0, which would read as a message without one.
        now_ns = NS + env.steps * pipeline.robot.step_ns
        pictures = env.render()
        for view in pipeline.policy.views:
            if view in pictures:
                pipeline.offer_image(view, camera_frame(pictures[view], now_ns, view))
        pipeline.offer_joints(env.observe(now_ns))
        ready = pipeline.readiness(now_ns)
        if not ready.ok:
            raise BadInput(f'{ready.reason.name}: {ready.text}')
        result = pipeline.tick(now_ns)
        self._coming.append((env.steps, result.chunk))
        self.inference_ms.append(result.timing.inference_ms)
        self.clamped += result.chunk.clamped
        return pictures

    def target(self) -> Float64Array:
        """The target of this control step, float64 [D] in the environment's joint order."""
        now = self._env.steps
        while self._coming and self._coming[0][0] + self._delay <= now:
            self._begun, self._chunk = self._coming.popleft()
        if self._chunk is None:
            return self._env.hold_target()
        row = self._chunk.actions[now - self._begun]
        target: Float64Array = row[self._order].astype(np.float64)
        return target


def _columns(env: Environment, pipeline: Pipeline) -> list[int]:
    names = pipeline.robot.joint_names
    if sorted(env.joint_names) != sorted(names):
        raise ConfigError(
            f'task {env.task} moves {", ".join(env.joint_names)}; robot {pipeline.robot.name} '
            f'has {", ".join(names)}: choose its robot file.'
        )
    return [names.index(name) for name in env.joint_names]
