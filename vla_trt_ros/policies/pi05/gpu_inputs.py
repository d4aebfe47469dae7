"""Camera frames -> the network's image input on the GPU; `inputs.ImageInput` is its twin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vla_trt_ros.camera.upload import CameraUpload
from vla_trt_ros.datatypes import CameraFrame
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu_frame import GpuFrame
from vla_trt_ros.preprocess.cuda.frames import Launcher
from vla_trt_ros.preprocess.cuda.images import ImageSpec, ImageWriter


@dataclass(frozen=True, slots=True)
class Written:
    """What `GpuImageInput.write` queued."""

    there: tuple[bool, ...]
    """Per place of the input, whether it shows a frame."""
    uploads: int
    """Host-to-device copies that the frames took, and their bytes."""
    upload_bytes: int


class GpuImageInput:
    """Writes ``views`` into the GPU buffer at ``address``, which is as long as ``spec`` says.

    With ``compact`` the views that have a frame come first, and a missing one leaves no gap.
    ``kernel`` is images.cu, compiled for this GPU unless given.
    """

    def __init__(
        self,
        views: tuple[str, ...],
        spec: ImageSpec,
        address: int,
        kernel: Launcher | None = None,
        *,
        compact: bool = False,
    ) -> None:
        if len(views) != spec.views:
            raise BackendError(
                f'{len(views)} views for an input of {spec.views}: they must agree.'
            )
        self._views = views
        self._address = address
        self._compact = compact
        self._writer = ImageWriter(spec, kernel)
        self._uploads = {view: CameraUpload(view) for view in views}

    def upload(self, view: str, frame: CameraFrame) -> CameraFrame:
        """``frame`` with its pixels on the GPU; for the callback of that camera, as it arrives.

        A frame that is there already, or of a camera that is no view, is given back as it is.
        Raises BadImage as `CameraUpload.put`.
        """
        ours = self._uploads.get(view)
        return frame if ours is None or frame.gpu is not None else ours.put(frame)

    def write(self, frames: Mapping[str, CameraFrame], stream: int) -> Written:
        """Queue on ``stream`` what fills the input; a place without a frame is left black.

        A frame that did not come through `upload` (a recording's, a simulator's) is uploaded now.
        """
        here = [self._on_gpu(view, frames.get(view)) for view in self._views]
        if self._compact:
            here.sort(key=lambda frame: frame is None)
        self._writer.write(here, self._address, stream)
        sent = [frame for frame in here if frame is not None]
        return Written(
            tuple(frame is not None for frame in here),
            sum(f.uploads for f in sent),
            sum(f.upload_bytes for f in sent),
        )

    def _on_gpu(self, view: str, frame: CameraFrame | None) -> GpuFrame | None:
        return None if frame is None else self.upload(view, frame).gpu
