"""Camera frames -> the network's image input on the GPU; `inputs.ImageInput` is its twin."""

from __future__ import annotations

from collections.abc import Mapping

from vla_trt_ros.camera.upload import CameraUpload
from vla_trt_ros.datatypes import CameraFrame
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu_frame import GpuFrame
from vla_trt_ros.preprocess.cuda.images import ImageSpec, ImageWriter, Launcher


class GpuImageInput:
    """Writes ``views`` into the GPU buffer at ``address``, which is as long as ``spec`` says.

    ``kernel`` is images.cu, compiled for this GPU unless given.
    """

    def __init__(
        self, views: tuple[str, ...], spec: ImageSpec, address: int, kernel: Launcher | None = None
    ) -> None:
        if len(views) != spec.views:
            raise BackendError(
                f'{len(views)} views for an input of {spec.views}: they must agree.'
            )
        self._views = views
        self._address = address
        self._writer = ImageWriter(spec, kernel)
        self._uploads = {view: CameraUpload(view) for view in views}

    def upload(self, view: str, frame: CameraFrame) -> CameraFrame:
        """``frame`` with its pixels on the GPU; for the callback of that camera, as it arrives.

        Raises BadImage as `CameraUpload.put`.
        """
        return self._uploads[view].put(frame)

    def write(self, frames: Mapping[str, CameraFrame], stream: int) -> tuple[int, int]:
        """Queue on ``stream`` what fills the input; a view without a frame is left black.

        A frame that did not come through `upload` (a recording's, a simulator's) is uploaded now.
        Returns the host-to-device copies that the frames took, and their bytes.
        """
        here = [self._on_gpu(view, frames.get(view)) for view in self._views]
        self._writer.write(here, self._address, stream)
        sent = [frame for frame in here if frame is not None]
        return sum(f.uploads for f in sent), sum(f.upload_bytes for f in sent)

    def _on_gpu(self, view: str, frame: CameraFrame | None) -> GpuFrame | None:
        if frame is None:
            return None
        return frame.gpu or self.upload(view, frame).gpu
