"""A backend that computes nothing: for timing everything around the engines, and for tests."""

from __future__ import annotations

import zlib

import numpy as np

from vla_trt_ros.backends.base import Array, Buffers, EngineSource
from vla_trt_ros.backends.host import HostEngine


class NullEngine(HostEngine):
    """Writes the same values at every run: a ramp inside [-1, 1] that differs by tensor name."""

    def __init__(self, source: EngineSource, buffers: Buffers) -> None:
        super().__init__(source, buffers)
        self._values = {name: _ramp(name, array) for name, array in self._outputs.items()}

    def _run(self) -> None:
        for name, value in self._values.items():
            np.copyto(self._outputs[name], value)


def _ramp(name: str, like: Array) -> Array:
    if like.dtype.kind != 'f':
        return np.ones_like(like)
    scale = 0.5 + (zlib.crc32(name.encode()) % 1000) / 2000.0
    # Half a step away from zero, so that no element is zero.
    ramp = (np.arange(like.size) + 0.5) / max(like.size, 1) * 2.0 - 1.0
    ramp[ramp == 0.0] = 0.5 / max(like.size, 1)
    return (scale * ramp).astype(like.dtype).reshape(like.shape)
