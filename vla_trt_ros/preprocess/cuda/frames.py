"""What the kernels that read a GpuFrame have in common on the Python side: twin of pixels.cu."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from vla_trt_ros.gpu.cuda import DeviceBuffer, Stream, upload
from vla_trt_ros.gpu_frame import GpuFrame


class Frame(ctypes.Structure):
    """pixels.cu's Frame: one camera image; all zero for none."""

    _fields_ = (
        ('pixels', ctypes.c_void_p),
        ('step', ctypes.c_longlong),
        ('height', ctypes.c_int),
        ('width', ctypes.c_int),
        ('family', ctypes.c_int),
        ('bytes', ctypes.c_int),
        ('where', ctypes.c_int * 3),
        ('unused', ctypes.c_int),
    )


def describe(frame: GpuFrame, to: Frame) -> None:
    """Write what the kernel needs to know of ``frame`` into ``to``."""
    to.pixels, to.step = frame.address, frame.step
    to.height, to.width = frame.height, frame.width
    to.family, to.bytes = int(frame.layout.family), frame.layout.bytes_per_pixel
    to.where[:] = frame.layout.where


class Launcher(Protocol):
    """What runs a kernel: `gpu.kernels.Kernel`."""

    def launch(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[Any],
        stream: int,
    ) -> None:
        """Queue it; ``arguments`` are ctypes values."""
        ...


def constant(array: np.ndarray[Any, Any], stream: Stream) -> DeviceBuffer:
    """``array`` on the GPU for good; waits for the copy."""
    buffer = DeviceBuffer(array.nbytes)
    upload(buffer.address, array, stream.handle)
    stream.wait()
    return buffer
