"""LIBERO as a robot, with openpi's cameras, state and actions: a Panda arm, one task at a time.

What is commanded are the seven inputs of an operational-space controller, each -1 to 1; what is
observed are eight readings (robot file ``libero``). Observations are as old as robosuite makes
them, one control step, since the policies were trained on those.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from vla_trt_ros.datatypes import Float64Array, JointSample, Uint8Array
from vla_trt_ros.errors import BackendError, BadAction, ConfigError
from vla_trt_ros.sim.libero_setup import import_libero
from vla_trt_ros.sim.libero_tasks import language_of, tasks_of

INPUTS = ('delta_x', 'delta_y', 'delta_z', 'turn_x', 'turn_y', 'turn_z', 'gripper')
READINGS = (
    'eef_x',
    'eef_y',
    'eef_z',
    'eef_axis_angle_x',
    'eef_axis_angle_y',
    'eef_axis_angle_z',
    'finger_1',
    'finger_2',
)
CAMERAS = {'base': 'agentview', 'wrist': 'robot0_eye_in_hand'}
"""Our view to LIBERO's camera; openpi's base_0_rgb and left_wrist_0_rgb."""

SIZE = 256
"""Pixels, both ways: what the training data were drawn at."""

SETTLE_STEPS = 10
"""Steps before an episode in which nothing is asked of the arm: objects fall into place."""

SCENE_SEED = 7
"""openpi's. It places what an initial state does not: fixtures."""

_RESETS = 20


class Libero:
    """One task of LIBERO as an ``Environment``.

    ``task`` is a name such as 'libero_spatial/0' or a task's language; ConfigError for an unknown
    one. ``width`` and ``height`` of the pictures are pixels. Call `reset` before anything else.
    BackendError where LIBERO, its meshes or OpenGL are missing.
    """

    def __init__(self, task: str, *, width: int = SIZE, height: int = SIZE) -> None:
        names = tasks_of(task)
        if len(names) != 1:
            raise ConfigError(f'task {task!r} is a suite; choose one task, such as {names[0]}.')
        self.task = names[0]
        self.prompt = language_of(self.task)
        self.joint_names = INPUTS
        self.success = False
        self.steps = 0
        self._size = (width, height)
        import_libero()
        self._env, self._states = _make(self.task, width, height)
        self._gripper = -1.0

    def reset(self, seed: int) -> None:
        """Begin in LIBERO's initial state number ``seed`` of this task, and let things settle.

        ConfigError for a number that it does not have. Seeds NumPy's global generator, as LIBERO
        does.
        """
        if not 0 <= seed < len(self._states):
            raise ConfigError(
                f'seed {seed}: {self.task} has initial states 0 to {len(self._states) - 1}.'
            )
        self._env.seed(SCENE_SEED)
        self._rebuild()
        self._observation = self._env.set_init_state(self._states[seed])
        self._watch()
        for _ in range(SETTLE_STEPS):
            self._observation = self._env.step([0.0] * 6 + [-1.0])[0]
        self._gripper = -1.0
        self.success = False
        self.steps = 0

    def observe(self, stamp_ns: int = 0) -> JointSample:
        """The eight READINGS: position of the gripper (m), its rotation as axis times angle (rad),
        and both fingers (m).
        """
        seen = self._observation
        turn = axis_angle(seen['robot0_eef_quat'])
        return JointSample(
            stamp_ns=stamp_ns,
            receive_ns=stamp_ns,
            names=READINGS,
            positions=np.concatenate([seen['robot0_eef_pos'], turn, seen['robot0_gripper_qpos']]),
        )

    def render(self) -> dict[str, Uint8Array]:
        """'base' and 'wrist' -> uint8 [height, width, 3], as `half_turn` leaves them."""
        width, height = self._size
        simulation, context = self._env.env.sim, self._take_context()
        live, context.data = context.data, SimpleNamespace(_data=self._seen)
        try:
            return {
                view: half_turn(simulation.render(width, height, camera_name=camera))
                for view, camera in CAMERAS.items()
            }
        finally:
            context.data = live

    def apply(self, target: Float64Array) -> None:
        """Advance 50 ms with controller inputs ``target``, float64 [7], each -1 to 1."""
        target = check_inputs(target)
        self._observation, _, done, _ = self._env.step(target.tolist())
        self._gripper = float(target[6])
        self.success = self.success or bool(done)
        self.steps += 1

    def hold_target(self) -> Float64Array:
        """No motion, and a gripper that goes on as it was told."""
        return np.array([0.0] * 6 + [self._gripper])

    def close(self) -> None:
        """Free the simulation and the renderer. A second call does nothing."""
        if self._env is not None:
            self._take_context()
            self._env.close()
            self._env = None

    def _take_context(self) -> Any:
        """Make this environment's OpenGL context the current one: robosuite draws into, and frees
        the framebuffer of, whichever is.
        """
        context = self._env.env.sim._render_context_offscreen
        context.gl_ctx.make_current()
        return context

    def _rebuild(self) -> None:
        # LIBERO's own reset() tries for ever whatever went wrong, even Ctrl-C.
        from robosuite.utils.errors import RandomizationError

        self._take_context()
        for _ in range(_RESETS):
            with contextlib.suppress(RandomizationError):
                self._env.env.reset()
                return
        raise BackendError(
            f'{self.task}: LIBERO found no room for its objects in {_RESETS} attempts.'
        )

    def _watch(self) -> None:
        """Keep what the cameras look at instead of drawing it: most steps nobody asks to see."""
        from robosuite.utils.observables import sensor

        simulation = self._env.env.sim

        # A sensor is read where robosuite samples the cameras: that is what they would have seen.
        @sensor(modality='image')  # type: ignore[untyped-decorator]
        def look(_: object) -> Float64Array:
            self._seen = copy.copy(simulation.data._data)
            return np.zeros(1)

        @sensor(modality='image')  # type: ignore[untyped-decorator]
        def blind(_: object) -> Float64Array:
            return np.zeros(1)

        for camera, sight in zip(CAMERAS.values(), (look, blind), strict=True):
            self._env.env.modify_observable(f'{camera}_image', 'sensor', sight)


def axis_angle(quaternion: Float64Array) -> Float64Array:
    """A unit quaternion, float64 [4] as x, y, z, w -> rotation axis times angle, float64 [3], rad.

    The angle is 0 to 2 pi: q and -q, the same rotation, give different numbers, as they did in
    the training data.
    """
    x, y, z, w = (float(value) for value in quaternion)
    w = min(1.0, max(-1.0, w))
    sine = math.sqrt(1.0 - w * w)
    if sine == 0.0:
        return np.zeros(3)
    return np.array([x, y, z]) * (2.0 * math.acos(w) / sine)


def half_turn(image: Uint8Array) -> Uint8Array:
    """uint8 [H, W, 3] as robosuite draws it, bottom row first -> upright and mirrored, which is
    how the training data show it.
    """
    return np.ascontiguousarray(image[::-1, ::-1])


def check_inputs(target: Float64Array) -> Float64Array:
    """``target`` float64 [7], each clipped to -1 to 1. BadAction: other shape, NaN or Inf."""
    target = np.asarray(target, dtype=np.float64)
    if target.shape != (len(INPUTS),):
        raise BadAction(
            f'target has shape {target.shape}; one value each for {", ".join(INPUTS)}.'
        )
    bad = np.flatnonzero(~np.isfinite(target))
    if bad.size:
        raise BadAction(f'target of {INPUTS[bad[0]]} is {target[bad[0]]}: nothing moves.')
    return np.clip(target, -1.0, 1.0)


def _make(task: str, width: int, height: int) -> tuple[Any, Any]:
    """LIBERO's environment and its initial states, float64 [50, state]."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the order of its tasks
        from libero.libero import benchmark
        from libero.libero.envs import OffScreenRenderEnv

        suite, _, index = task.partition('/')
        tasks = benchmark.get_benchmark(suite)()
        environment = OffScreenRenderEnv(
            bddl_file_name=tasks.get_task_bddl_file_path(int(index)),
            camera_widths=width,
            camera_heights=height,
            # Episodes end where the caller says; robosuite would raise after 1000 steps.
            ignore_done=True,
        )
        return environment, tasks.get_task_init_states(int(index))
