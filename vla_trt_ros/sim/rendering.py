"""Pictures of a MuJoCo model, drawn off screen at a price that two cores can pay.

Shadows, reflections and multisampling are off: they make no difference to a task and cost ten
times the rest (docs/simulator.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import numpy as np

from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.sim.gl import choose_gl
from vla_trt_ros.sim.views import FixedView, View

choose_gl()

import mujoco  # type: ignore[import-untyped]  # noqa: E402  # after the choice of OpenGL

MAX_WIDTH, MAX_HEIGHT = 640, 480
_FOVY = 45.0
_OFF = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)


class Cameras:
    """The views of one model, all of one size.

    The OpenGL context belongs to the thread that made this object: render and close there.
    """

    def __init__(
        self, model: mujoco.MjModel, views: Mapping[str, View], *, width: int, height: int
    ) -> None:
        check_size(width, height)
        # Both are read when the context is made.
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        model.vis.global_.fovy = _FOVY
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        self._views = dict(views)
        self._cameras = {name: _camera(view) for name, view in views.items()}
        self._renderer = mujoco.Renderer(model, height, width)
        for flag in _OFF:
            self._renderer.scene.flags[flag] = 0

    def render(self, data: mujoco.MjData) -> dict[str, Uint8Array]:
        """Camera name -> uint8 [height, width, 3], RGB, upright; new arrays at each call."""
        images: dict[str, Uint8Array] = {}
        for name, camera in self._cameras.items():
            self._renderer.update_scene(data, camera)
            image: Uint8Array = self._renderer.render()
            view = self._views[name]
            if isinstance(view, FixedView) and view.upside_down:
                image = np.ascontiguousarray(image[::-1, ::-1])
            images[name] = image
        return images

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()

    def __enter__(self) -> Cameras:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_size(width: int, height: int) -> None:
    """Raise ConfigError unless the picture is 16x16 to 640x480 pixels."""
    if not (16 <= width <= MAX_WIDTH and 16 <= height <= MAX_HEIGHT):
        raise ConfigError(
            f'image size {width} x {height} is outside 16 x 16 to {MAX_WIDTH} x {MAX_HEIGHT}.'
        )


def _camera(view: View) -> str | mujoco.MjvCamera:
    if isinstance(view, FixedView):
        return view.camera
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.azimuth = view.azimuth
    camera.elevation = view.elevation
    camera.distance = view.distance
    camera.lookat[:] = view.look_at
    return camera
