"""Which OpenGL MuJoCo draws with. MuJoCo reads the choice once, when it is imported."""

from __future__ import annotations

import ctypes
import importlib.util
import os

from vla_trt_ros.errors import BackendError

VARIABLE = 'MUJOCO_GL'
DEFAULT = 'osmesa'
"""Draws on the processor: no display, no GPU, no driver."""

_OSMESA_LIBRARIES = ('libOSMesa.so.8', 'libOSMesa.so.6', 'libOSMesa.so')


def choose_gl(
    modules: tuple[str, ...] = ('mujoco', 'metaworld'),
    install: str = 'pip install "vla_trt_ros[sim]"',
) -> str:
    """Set MUJOCO_GL to OSMesa unless the user chose; call it before MuJoCo is imported.

    ``modules`` are what the simulator imports, ``install`` the command that gets them. Returns the
    choice ('osmesa', 'egl', 'glfw'). Raises BackendError where the simulator is not installed, or
    where OSMesa is chosen and its library is missing: MuJoCo would report that as an
    AttributeError deep in PyOpenGL.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise BackendError(
                f'the simulator needs the Python package {module}: run `{install}`.'
            )
    choice = os.environ.setdefault(VARIABLE, DEFAULT).strip().lower()
    if choice == 'osmesa' and not has_osmesa():
        raise BackendError(
            'libOSMesa, which the simulator draws with, is not installed: run '
            '`apt-get install libosmesa6`, or set MUJOCO_GL=egl on a machine with a GPU.'
        )
    return choice


def has_osmesa() -> bool:
    """True where OSMesa's library loads."""
    for name in _OSMESA_LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
