"""Detectors and classifiers on a GPU: they read the frame where the policy's upload put it.

All of it is queued on one stream without urgency; the policy's has it (gpu/cuda.py), so a look
takes what the policy leaves. Every kernel ends by itself and waits for nothing of the policy's. A
look waits twice: for the boxes, and for the labels of all crops.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vla_trt_ros.camera.upload import CameraUpload
from vla_trt_ros.datatypes import CameraFrame, Float32Array
from vla_trt_ros.gpu.cuda import Event, Stream
from vla_trt_ros.gpu_frame import GpuFrame
from vla_trt_ros.perception.classifier import Classifier
from vla_trt_ros.perception.detections import Detections
from vla_trt_ros.perception.detector import Detector
from vla_trt_ros.perception.gpu_networks import GpuClassifier, GpuDetector, Kernels


class GpuEyes:
    """`picture.Eyes` on a GPU, captured and warm. Detectors and classifiers have engines there.

    ``most`` boxes a classifier are looked at in one picture. BackendError where an engine is not
    on the GPU or does not run, or the GPU has no room.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        classifiers: Sequence[Classifier],
        *,
        most: int = 100,
        kernels: Kernels | None = None,
    ) -> None:
        kernels = kernels or Kernels()
        self.stream = Stream()
        self._done = Event(timing=False, asleep=True)
        self._uploads: dict[str, CameraUpload] = {}
        with contextlib.ExitStack() as undo:
            self.detectors: list[GpuDetector] = []
            self.classifiers: list[GpuClassifier] = []
            for detector in detectors:
                self.detectors.append(GpuDetector(detector, self.stream, kernels))
                undo.callback(self.detectors[-1].close)
            for classifier in classifiers:
                self.classifiers.append(GpuClassifier(classifier, self.stream, most, kernels))
                undo.callback(self.classifiers[-1].close)
            self._warm_up()
            self._stack = undo.pop_all()

    def open(self, view: str, frame: CameraFrame) -> GpuPicture:
        """``frame`` where it lies on the GPU; one that came without is uploaded, which is counted.

        BadImage as `CameraUpload.put`.
        """
        if frame.gpu is not None:
            return GpuPicture(frame.gpu, self)
        if view not in self._uploads:
            self._uploads[view] = CameraUpload(view)
        gpu = self._uploads[view].put(frame).gpu
        assert gpu is not None
        return GpuPicture(gpu, self)

    def wait(self) -> None:
        """Until all that was queued is done. BackendError if it failed, DeviceLost if for good."""
        self._done.record(self.stream.handle)
        self._done.wait()

    @contextlib.contextmanager
    def reading(self, gpu: GpuFrame) -> Iterator[None]:
        """What is queued in the block finds the pixels, and nobody writes there before it ran."""
        gpu.lease.wait(self.stream.handle)
        try:
            yield
        finally:
            gpu.lease.read(self.stream.handle)

    def _warm_up(self) -> None:
        grey = np.full(3 * 8 * 8, 114, np.uint8)
        frame = CameraFrame(0, 0, '', 'rgb8', 8, 8, 24, grey)
        picture = self.open('warm-up', frame)
        picture.detect()
        picture.classify([np.array([[0, 0, 8, 8]], np.float32) for _ in self.classifiers])
        del self._uploads['warm-up']

    def close(self) -> None:
        """Give graphs and uploads back, when what runs is done; a second call does nothing."""
        self._stack.close()
        self._uploads.clear()


@dataclass(frozen=True, slots=True)
class GpuPicture:
    """`picture.Picture` on the GPU."""

    gpu: GpuFrame
    eyes: GpuEyes

    @property
    def width(self) -> int:
        """As `Picture.width`."""
        return self.gpu.width

    @property
    def height(self) -> int:
        """As `Picture.height`."""
        return self.gpu.height

    def detect(self) -> list[Detections]:
        """All detectors, one wait."""
        with self.eyes.reading(self.gpu):
            for detector in self.eyes.detectors:
                detector.queue(self.gpu)
        self.eyes.wait()
        return [d.detections(self.width, self.height) for d in self.eyes.detectors]

    def classify(self, boxes: Sequence[Float32Array]) -> list[Float32Array]:
        """All crops of all classifiers, one wait."""
        with self.eyes.reading(self.gpu):
            for classifier, wanted in zip(self.eyes.classifiers, boxes, strict=True):
                classifier.queue(self.gpu, wanted)
        if any(len(wanted) for wanted in boxes):
            self.eyes.wait()
        return [classifier.probabilities() for classifier in self.eyes.classifiers]
