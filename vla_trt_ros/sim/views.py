"""Where the simulator's cameras stand. A view is chosen by name; a new one is a row here."""

from __future__ import annotations

from dataclasses import dataclass

from vla_trt_ros.errors import ConfigError


@dataclass(frozen=True, slots=True)
class FixedView:
    """A camera of the MuJoCo model."""

    camera: str
    upside_down: bool = False
    """The model mounts it upside down: the picture is turned by 180 degrees."""


@dataclass(frozen=True, slots=True)
class FreeView:
    """A camera placed by us: it looks at a point from a distance. Degrees and metres."""

    azimuth: float
    """Direction of sight around +z: 90 looks along +y, away from the robot."""
    elevation: float
    """Negative looks down."""
    distance: float
    look_at: tuple[float, float, float]


View = FixedView | FreeView

BASE_VIEWS: dict[str, View] = {
    # Close, beside the robot's right shoulder: the hand hides neither the object nor the goal, and
    # the whole reach of the tasks is in the picture.
    'near': FreeView(azimuth=148.0, elevation=-35.0, distance=1.1, look_at=(-0.04, 0.66, 0.12)),
    'corner': FixedView('corner', upside_down=True),
    'corner2': FixedView('corner2', upside_down=True),
    'corner3': FixedView('corner3', upside_down=True),
    'corner4': FixedView('corner4', upside_down=True),
    'topview': FixedView('topview'),
}
"""Choices for the base camera; all but 'near' are Meta-World's own."""

WRIST_VIEW: View = FixedView('gripperPOV')
"""Between the fingers, looking down; up in the picture is away from the robot's base."""


def base_view(name: str) -> View:
    """A row of BASE_VIEWS; ConfigError names the choices."""
    if name not in BASE_VIEWS:
        raise ConfigError(f'base view {name!r} is none of {", ".join(BASE_VIEWS)}.')
    return BASE_VIEWS[name]
