"""Camera frames -> the square inputs of detectors and classifiers, by launches of squares.cu.

The GPU's twin of `letterbox.draw_letterbox` (the same bytes) and `crop.stretch` (the same bytes
where it enlarges, at most one level apart where it averages). It reads a frame where
camera/upload.py put it and writes where the engine reads.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from vla_trt_ros.datatypes import Float32Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.gpu.cuda import Stream
from vla_trt_ros.gpu.kernels import Kernel
from vla_trt_ros.gpu_frame import GpuFrame
from vla_trt_ros.preprocess.crop import Corners, shrinks
from vla_trt_ros.preprocess.cuda.frames import Frame, Launcher, constant, describe
from vla_trt_ros.preprocess.letterbox import Letterbox

SOURCE = Path(__file__).with_name('squares.cu')
BLOCK = (32, 4, 1)


class Cut(ctypes.Structure):
    """squares.cu's Cut: a part of a frame, and where it lands in the square."""

    _fields_ = (
        ('frame', Frame),
        ('scale_x', ctypes.c_double),
        ('scale_y', ctypes.c_double),
        ('x', ctypes.c_int),
        ('y', ctypes.c_int),
        ('width', ctypes.c_int),
        ('height', ctypes.c_int),
        ('new_width', ctypes.c_int),
        ('new_height', ctypes.c_int),
        ('left', ctypes.c_int),
        ('top', ctypes.c_int),
        ('side', ctypes.c_int),
        ('area', ctypes.c_int),
    )


class SquareWriter:
    """Writes squares of ``side`` pixels, planes [3, side, side], red first. One thread at a time.

    ``levels`` [3, 256], float32 or float16, is what each level of red, green and blue becomes.
    ``kernel`` is squares.cu, compiled for this GPU unless given. BackendError where that fails.

    The caller orders readers and writers: `FrameLease.wait` before, `FrameLease.read` after.
    """

    def __init__(self, side: int, levels: Float32Array, kernel: Launcher | None = None) -> None:
        if levels.shape != (3, 256) or levels.dtype.name not in ('float32', 'float16'):
            raise ConfigError(
                f'levels are {levels.dtype} {list(levels.shape)}; a square takes float32 or '
                'float16 [3, 256].'
            )
        self.side = side
        self._kernel = kernel or Kernel(SOURCE, f'write_square_{levels.dtype.itemsize * 8}')
        self._levels = constant(levels, Stream())
        self._grid = (-(-side // BLOCK[0]), -(-side // BLOCK[1]), 1)

    def fit(self, frame: GpuFrame, place: Letterbox, address: int, stream: int) -> None:
        """Queue the whole ``frame`` at ``place``, grey around it."""
        whole = (0, 0, place.width, place.height)
        where = (place.new_width, place.new_height, place.left, place.top)
        self._launch(frame, whole, where, False, address, stream)

    def cut(self, frame: GpuFrame, corners: Corners, address: int, stream: int) -> None:
        """Queue the part of ``frame`` at ``corners``, stretched to the whole square."""
        where = (self.side, self.side, 0, 0)
        self._launch(frame, corners, where, shrinks(corners, self.side), address, stream)

    def _launch(
        self,
        frame: GpuFrame,
        corners: Corners,
        where: tuple[int, int, int, int],
        area: bool,
        address: int,
        stream: int,
    ) -> None:
        cut = Cut(side=self.side, area=area)
        describe(frame, cut.frame)
        cut.x, cut.y = corners[:2]
        cut.width, cut.height = corners[2] - corners[0], corners[3] - corners[1]
        cut.new_width, cut.new_height, cut.left, cut.top = where
        cut.scale_x = _scale(cut.width, cut.new_width, area)
        cut.scale_y = _scale(cut.height, cut.new_height, area)
        table, out = ctypes.c_void_p(self._levels.address), ctypes.c_void_p(address)
        self._kernel.launch(self._grid, BLOCK, (cut, table, out), stream)


def _scale(size: int, new_size: int, area: bool) -> float:
    """As OpenCV has it: the inverse of a rounded quotient, not the quotient; for averages whole
    where it is so but for the last bit.
    """
    scale = 1.0 / (new_size / size)
    whole = round(scale)
    return whole if area and abs(scale - whole) < np.finfo(float).eps else scale
