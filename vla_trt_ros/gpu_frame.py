"""Camera pixels where a GPU reads them: what camera/upload.py makes and the kernels take."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol


class PixelFamily(enum.IntEnum):
    """How the bytes of an encoding are arranged; the numbers are pixels.cu's."""

    INTERLEAVED = 0
    YUV422 = 1
    BAYER = 2


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """Where a kernel finds red, green and blue in uint8 pixels.

    ``where`` is, for INTERLEAVED, the byte of R, G and B in a pixel; for YUV422, the byte of the
    first Y, of U and of V in a pair of pixels; for BAYER, column and row of the red pixel in its
    tile of 2 x 2, and 0.
    """

    family: PixelFamily
    bytes_per_pixel: int
    where: tuple[int, int, int]


class FrameLease(Protocol):
    """Keeps the memory of a `GpuFrame` from being written to."""

    def wait(self, stream: int) -> None:
        """Let what is queued on ``stream`` from now on find the pixels there."""
        ...

    def read(self, stream: int) -> None:
        """What is queued on ``stream`` so far reads the pixels: nobody writes there before it is
        done, even if the frame goes.
        """
        ...


@dataclass(frozen=True, slots=True)
class GpuFrame:
    """Pixels of one camera image at a GPU address, as they arrived: no conversion.

    ``height`` rows of ``step`` bytes from ``address`` on, the last one without its padding. They
    stay as they are while this object lives. Around what reads them: ``lease.wait(stream)``
    before it is queued, ``lease.read(stream)`` after.
    """

    address: int
    height: int
    width: int
    step: int
    layout: PixelLayout
    lease: FrameLease
    uploads: int
    """Host-to-device copies it took: 1, or 0 where the GPU reads the host's memory."""
    upload_bytes: int
