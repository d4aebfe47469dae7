"""Camera frames -> the network's image input, by one launch of images.cu.

Every encoding, resize with pad, scaling and layout happen in that kernel; it reads the frames
where camera/upload.py put them and writes where the engine reads. Levels are those of
`camera/decode.to_rgb` and `filters.resize_levels`, so at most 1 of 255 from the CPU path's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vla_trt_ros.errors import BackendError, ConfigError
from vla_trt_ros.gpu.cuda import DeviceBuffer, Stream
from vla_trt_ros.gpu.kernels import Kernel
from vla_trt_ros.gpu_frame import GpuFrame, PixelLayout
from vla_trt_ros.preprocess.cuda.filters import filter_table
from vla_trt_ros.preprocess.cuda.frames import Frame, Launcher, constant, describe
from vla_trt_ros.preprocess.levels import level_words
from vla_trt_ros.preprocess.resize import fit

SOURCE = Path(__file__).with_name('images.cu')
MAX_VIEWS = 8
BLOCK = (32, 4, 1)


class View(ctypes.Structure):
    """images.cu's View: one frame and how it lands in the output; all zero for no frame."""

    _fields_ = (
        ('frame', Frame),
        ('columns', ctypes.c_void_p),
        ('rows', ctypes.c_void_p),
        ('new_height', ctypes.c_int),
        ('new_width', ctypes.c_int),
        ('top', ctypes.c_int),
        ('left', ctypes.c_int),
    )


class Target(ctypes.Structure):
    """images.cu's Target: the shape of the output."""

    _fields_ = (
        ('height', ctypes.c_int),
        ('width', ctypes.c_int),
        ('patch', ctypes.c_int),
        ('row', ctypes.c_int),
    )


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """The network's image input for ``views`` pictures of ``height`` x ``width`` pixels.

    Planes [views, 3, height, width]; or, with ``patch``, [views * patches, row]: patches in
    reading order, each as channel, row, column, and ``row`` elements from one to the next (0: no
    gap; a gap is not written to). ``dtype`` is 'float32', 'float16' or 'bfloat16'.
    """

    views: int
    height: int
    width: int
    dtype: str = 'float32'
    patch: int = 0
    row: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.views <= MAX_VIEWS:
            raise ConfigError(f'{self.views} views: one launch takes 1 to {MAX_VIEWS}.')
        if self.height < 1 or self.width < 1:
            raise ConfigError(f'an image input of {self.width} x {self.height} has no pixels.')
        cut = self.patch and (self.height % self.patch or self.width % self.patch)
        if self.patch < 0 or cut:
            raise ConfigError(
                f'{self.width} x {self.height} pixels are not a multiple of patch {self.patch}.'
            )
        if self.row and self.row < 3 * self.patch**2:
            raise ConfigError(f'row {self.row} is shorter than a patch, {3 * self.patch**2}.')
        level_words(self.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the output."""
        if not self.patch:
            return self.views, 3, self.height, self.width
        patches = (self.height // self.patch) * (self.width // self.patch)
        return self.views * patches, self.row or 3 * self.patch**2


@dataclass(frozen=True, slots=True)
class _Filters:
    """Both filters of one camera size, on the GPU, and where the picture lands."""

    columns: DeviceBuffer
    rows: DeviceBuffer
    place: tuple[int, int, int, int]


class ImageWriter:
    """Writes the image input of ``spec``. One thread at a time.

    ``kernel`` is images.cu, compiled for this GPU unless given. BackendError where that fails.
    """

    def __init__(self, spec: ImageSpec, kernel: Launcher | None = None) -> None:
        words = level_words(spec.dtype)
        bits = words.dtype.itemsize * 8
        self.spec = spec
        self._kernel = kernel or Kernel(SOURCE, f'write_images_{bits}')
        self._target = Target(spec.height, spec.width, spec.patch, spec.shape[1])
        self._grid = (-(-spec.width // BLOCK[0]), -(-spec.height // BLOCK[1]), spec.views)
        self._stream = Stream()
        self._filters: dict[tuple[int, int], _Filters] = {}
        self._levels = constant(words, self._stream)
        # Frames come in few shapes: what a place said of the last one mostly holds for the next.
        self._views = (View * MAX_VIEWS)()
        self._shapes: list[tuple[int, int, int, PixelLayout] | None] = [None] * spec.views
        self._out = ctypes.c_void_p()
        levels = ctypes.c_void_p(self._levels.address)
        self._arguments = self._views, self._target, levels, self._out

    def prepare(self, height: int, width: int) -> None:
        """Make the filters of a camera size, which the first frame would else wait for."""
        if (height, width) in self._filters:
            return
        place = fit(height, width, self.spec.height, self.spec.width)
        columns, rows = filter_table(width, place[1]), filter_table(height, place[0])
        self._filters[height, width] = _Filters(
            constant(columns, self._stream), constant(rows, self._stream), place
        )

    def write(self, frames: Sequence[GpuFrame | None], address: int, stream: int) -> None:
        """Queue on ``stream``: wait for the frames, then fill the input at ``address``.

        ``frames`` are in the order of the network's views; None leaves a view black. BackendError
        if they are not one for each view.
        """
        if len(frames) != self.spec.views:
            raise BackendError(
                f'{len(frames)} frames for {self.spec.views} views: None is one missing.'
            )
        for i, frame in enumerate(frames):
            self._describe(i, frame)
            if frame is not None:
                frame.lease.wait(stream)
        self._out.value = address
        self._kernel.launch(self._grid, BLOCK, self._arguments, stream)
        for frame in frames:
            if frame is not None:
                frame.lease.read(stream)

    def _describe(self, place: int, frame: GpuFrame | None) -> None:
        view = self._views[place]
        if frame is None:
            if self._shapes[place] is not None:
                ctypes.memset(ctypes.byref(view), 0, ctypes.sizeof(view))
                self._shapes[place] = None
            return
        shape = frame.height, frame.width, frame.step, frame.layout
        if shape != self._shapes[place]:
            self._fill(view, frame)
            self._shapes[place] = shape
        view.frame.pixels = frame.address

    def _fill(self, view: View, frame: GpuFrame) -> None:
        self.prepare(frame.height, frame.width)
        filters = self._filters[frame.height, frame.width]
        describe(frame, view.frame)
        view.columns, view.rows = filters.columns.address, filters.rows.address
        view.new_height, view.new_width, view.top, view.left = filters.place
