"""CameraFrame -> the same frame with its pixels on the GPU: checked, then copied once."""

from __future__ import annotations

from dataclasses import replace

from vla_trt_ros.camera.decode import check_even, check_rows, to_rgb
from vla_trt_ros.camera.encodings import COMPRESSED, raw_encoding
from vla_trt_ros.datatypes import CameraFrame
from vla_trt_ros.errors import BadImage
from vla_trt_ros.gpu.ring import UploadRing
from vla_trt_ros.gpu_frame import GpuFrame

PLACES = 6
"""The newest frame, one being read, one being written, one for a second reader, and two more for
chunks that overlap."""


class CameraUpload:
    """The way of one camera's frames to the GPU. One thread puts.

    Memory is taken for the largest frame so far: at the first one, or by `prepare`.
    """

    def __init__(self, camera: str, *, places: int = PLACES, mapped: bool | None = None) -> None:
        self.camera = camera
        self._places = places
        self._mapped = mapped
        self._ring: UploadRing | None = None

    def prepare(self, nbytes: int) -> UploadRing:
        """The ring, made or made larger for frames of ``nbytes`` bytes; BackendError where the GPU
        has no room. Frames that are held keep the old one's memory.
        """
        if self._ring is None or self._ring.nbytes < nbytes:
            self._ring = UploadRing(nbytes, self._places, mapped=self._mapped)
        return self._ring

    def put(self, frame: CameraFrame) -> CameraFrame:
        """``frame`` with `CameraFrame.gpu`, whose copy may still be under way.

        JPEG and PNG are decoded here, on the processor. BadImage as `camera/decode.to_rgb`, and
        if readers hold all places of the ring.
        """
        pixels = _as_raw(frame) if frame.encoding in COMPRESSED else frame
        check_even(pixels.encoding, pixels.height, pixels.width)
        nbytes = check_rows(
            pixels.encoding, pixels.height, pixels.width, pixels.step, pixels.data.size
        )
        lease = self.prepare(nbytes).put(pixels.data[:nbytes])
        if lease is None:
            raise BadImage(
                f'camera {self.camera}: {self._places} frames are on the GPU and all are held; '
                'a reader is slower than the camera.'
            )
        gpu = GpuFrame(
            lease.address,
            pixels.height,
            pixels.width,
            pixels.step,
            raw_encoding(pixels.encoding).layout,
            lease,
            lease.uploads,
            lease.upload_bytes,
        )
        return replace(frame, gpu=gpu)


def _as_raw(frame: CameraFrame) -> CameraFrame:
    rgb = to_rgb(frame)
    height, width, _ = rgb.shape
    return replace(
        frame, encoding='rgb8', height=height, width=width, step=3 * width, data=rgb.reshape(-1)
    )
