"""Pictures of a MuJoCo model, drawn off screen at a price that two cores can pay.

Shadows, reflections and multisampling are off: they make no difference to a task and cost ten
times the rest (docs/simulator.md has the figures).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vla_trt_ros.closing import Closing
from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.sim.gl import choose_gl
from vla_trt_ros.sim.views import FixedView, View

choose_gl()

import mujoco  # type: ignore[import-untyped]  # noqa: E402  # after the choice of OpenGL

MAX_WIDTH, MAX_HEIGHT = 640, 480
_FOVY = 45.0
_MAX_GEOMS = 1000
_OFF = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)


class Cameras(Closing):
    """The views of one model, all of one size.

    The OpenGL context belongs to the thread that made this object: render there.
    """

    def __init__(
        self, model: mujoco.MjModel, views: Mapping[str, View], *, width: int, height: int
    ) -> None:
        check_size(width, height)
        # Read when the context is made.
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.global_.fovy = _FOVY
        self._model = model
        self._views = {name: (view, _camera(model, view)) for name, view in views.items()}
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._option = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        for flag in _OFF:
            self._scene.flags[flag] = 0
        self._gl: Any = mujoco.GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def render(self, data: mujoco.MjData) -> dict[str, Uint8Array]:
        """Camera name -> uint8 [height, width, 3], RGB, upright; new arrays at each call."""
        self._gl.make_current()
        images: dict[str, Uint8Array] = {}
        pixels = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
        for name, (view, camera) in self._views.items():
            mujoco.mjv_updateScene(
                self._model,
                data,
                self._option,
                None,
                camera,
                mujoco.mjtCatBit.mjCAT_ALL,
                self._scene,
            )
            mujoco.mjr_render(self._rect, self._scene, self._context)
            mujoco.mjr_readPixels(pixels, None, self._rect, self._context)
            # OpenGL's rows run from the bottom up, which an upside-down camera has put right.
            turned = isinstance(view, FixedView) and view.upside_down
            images[name] = (pixels[:, ::-1] if turned else pixels[::-1]).copy()
        return images

    def close(self) -> None:
        """Free what the context holds, then the context. A second call does nothing."""
        if self._gl is None:
            return
        # mujoco.Renderer frees in the other order, and so deletes the framebuffer of whichever
        # context is current: the next environment's pictures then come out upside down.
        self._gl.make_current()
        self._context.free()
        self._gl.free()
        self._gl = None

    def __del__(self) -> None:
        # An environment that was dropped without close() must not harm another's context either.
        with contextlib.suppress(Exception):
            self.close()


def check_size(width: int, height: int) -> None:
    """Raise ConfigError unless the picture is 16x16 to 640x480 pixels."""
    if not (16 <= width <= MAX_WIDTH and 16 <= height <= MAX_HEIGHT):
        raise ConfigError(
            f'image size {width} x {height} is outside 16 x 16 to {MAX_WIDTH} x {MAX_HEIGHT}.'
        )


def _camera(model: mujoco.MjModel, view: View) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    if isinstance(view, FixedView):
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = model.camera(view.camera).id
    else:
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.azimuth = view.azimuth
        camera.elevation = view.elevation
        camera.distance = view.distance
        camera.lookat[:] = view.look_at
    return camera
