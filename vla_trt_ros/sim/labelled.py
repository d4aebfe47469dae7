"""Meta-World's pictures with what is in them: boxes to train detectors on and to judge them by.

The boxes are those of the visible pixels: MuJoCo draws each picture a second time with a colour
per object. They are made of the physics, so no network and no person had a part in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla_trt_ros.datatypes import Float32Array, Uint8Array
from vla_trt_ros.sim.metaworld import MetaWorld
from vla_trt_ros.sim.rendering import Cameras  # chooses OpenGL before MuJoCo is imported
from vla_trt_ros.sim.views import View

import mujoco  # type: ignore[import-untyped]  # isort: skip

LABELS = (
    'gripper',
    'puck',
    'goal',
    'drawer',
    'door',
    'door handle',
    'button',
    'button box',
    'window',
    'peg',
    'peg block',
)
TASKS = (
    'reach',
    'push',
    'pick-place',
    'door-open',
    'door-close',
    'drawer-open',
    'drawer-close',
    'button-press-topdown',
    'window-open',
    'window-close',
    'peg-insert-side',
)
"""Tasks that show them; a puck is only called so in the first three."""

MIN_PIXELS = 24
"""Fewer visible pixels than this, in a picture 320 wide, are no object."""

_BODIES = {
    'hand': 'gripper',
    'rightclaw': 'gripper',
    'rightpad': 'gripper',
    'leftclaw': 'gripper',
    'leftpad': 'gripper',
    'obj': 'puck',
    'drawercase_link': 'drawer',
    'drawer_link': 'drawer',
    'doorlockB': 'door',
    'door_link': 'door',
    'button': 'button',
    'buttonbox': 'button box',
    'windowb_a': 'window',
    'windowb_b': 'window',
    'peg': 'peg',
}
_CHILDREN = {'window': 'window', 'box': 'peg block'}
"""Nameless bodies, by the name of the one that holds them."""


@dataclass(frozen=True, slots=True)
class Truth:
    """One picture and what is in it. ``boxes`` float32 [N, 4]: left, upper, right, lower edge in
    pixels; ``labels`` int64 [N], places in LABELS.
    """

    image: Uint8Array
    boxes: Float32Array
    labels: np.typing.NDArray[np.int64]


class LabelledCameras(Cameras):
    """The views of a Meta-World task, drawn with their labels."""

    def __init__(
        self, env: MetaWorld, views: Mapping[str, View], *, width: int, height: int
    ) -> None:
        super().__init__(env.model, views, width=width, height=height)
        self._env = env
        self._geoms, self._sites = _labels_of(env.model)

    def look(self) -> dict[str, Truth]:
        """View name -> what the camera sees now."""
        data = self._env.data
        images = self.render(data)
        segment, colour = mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR
        self._scene.flags[segment] = self._scene.flags[colour] = 1
        try:
            drawn = self.render(data)
        finally:
            self._scene.flags[segment] = self._scene.flags[colour] = 0
        # Every view has the same objects in the same order: one table serves them all.
        objects = self._objects()
        return {name: self._truth(image, drawn[name], objects) for name, image in images.items()}

    def _objects(self) -> dict[int, tuple[str, ...]]:
        """Colour in the second picture -> labels of what is drawn in it."""
        found: dict[int, tuple[str, ...]] = {}
        for geom in self._scene.geoms[: self._scene.ngeom]:
            table = {
                int(mujoco.mjtObj.mjOBJ_GEOM): self._geoms,
                int(mujoco.mjtObj.mjOBJ_SITE): self._sites,
            }.get(int(geom.objtype), {})
            names = table.get(int(geom.objid), ())
            if names and geom.segid >= 0:
                found[int(geom.segid) + 1] = names
        return found

    def _truth(
        self, image: Uint8Array, drawn: Uint8Array, objects: dict[int, tuple[str, ...]]
    ) -> Truth:
        colours = drawn.astype(np.int64) @ np.array((1, 1 << 8, 1 << 16))
        masks: dict[str, np.typing.NDArray[np.bool_]] = {}
        for colour in np.unique(colours).tolist():
            for name in objects.get(colour, ()):
                mask = colours == colour
                masks[name] = masks[name] | mask if name in masks else mask
        least = MIN_PIXELS * (image.shape[1] / 320) ** 2
        boxes, labels = [], []
        for label, name in enumerate(LABELS):
            if name not in masks or masks[name].sum() < least:
                continue
            rows, columns = np.flatnonzero(masks[name].any(1)), np.flatnonzero(masks[name].any(0))
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
            labels.append(label)
        return Truth(
            image,
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int64),
        )


def _labels_of(
    model: mujoco.MjModel,
) -> tuple[dict[int, tuple[str, ...]], dict[int, tuple[str, ...]]]:
    """Labels of each geom and of each site; a door's handle is part of the door too."""
    geoms: dict[int, tuple[str, ...]] = {}
    for i in range(model.ngeom):
        body = int(model.geom_bodyid[i])
        name = model.body(body).name
        above = model.body(int(model.body_parentid[body])).name
        label = _BODIES.get(name) or (_CHILDREN.get(above) if not name else None)
        if label:
            extra = ('door handle',) if model.geom(i).name == 'handle' else ()
            geoms[i] = (label, *extra)
    sites: dict[int, tuple[str, ...]] = {
        i: ('goal',) for i in range(model.nsite) if model.site(i).name == 'goal'
    }
    return geoms, sites
