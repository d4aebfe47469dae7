"""A camera frame that is looked at, and who makes one of a frame.

On the CPU it is decoded pixels; on a GPU, pixels that nobody but kernels touches. Which of the two
is chosen once, when detectors are loaded; `scene.Perception` never asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.datatypes import CameraFrame, Float32Array, Uint8Array
from vla_trt_ros.perception.classifier import Classifier
from vla_trt_ros.perception.detections import Detections
from vla_trt_ros.perception.detector import Detector


class Picture(Protocol):
    """One frame. Dropped when it was looked at: it may keep memory that the camera needs."""

    @property
    def width(self) -> int:
        """Pixels of the camera's own picture."""
        ...

    @property
    def height(self) -> int:
        """As `width`."""
        ...

    def detect(self) -> list[Detections]:
        """What each detector finds, in pixels of the camera's own picture."""
        ...

    def classify(self, boxes: Sequence[Float32Array]) -> list[Float32Array]:
        """For each classifier the probabilities of its ``boxes`` [N, 4]: [N, labels], a row of
        zeros where there is nothing to see.
        """
        ...


class Eyes(Protocol):
    """All detectors and classifiers, ready to look. Used by one thread at a time."""

    def open(self, view: str, frame: CameraFrame) -> Picture:
        """``frame`` of camera ``view``. BadImage for one that cannot be used."""
        ...

    def close(self) -> None:
        """Give back what is its own; detectors and classifiers are closed by who made them."""
        ...


@dataclass(frozen=True, slots=True)
class HostPicture:
    """Decoded pixels, uint8 [H, W, 3]."""

    image: Uint8Array
    detectors: Sequence[Detector]
    classifiers: Sequence[Classifier]

    @property
    def width(self) -> int:
        """As `Picture.width`."""
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        """As `Picture.height`."""
        return int(self.image.shape[0])

    def detect(self) -> list[Detections]:
        """One detector after the other."""
        return [detector.detect_rgb(self.image) for detector in self.detectors]

    def classify(self, boxes: Sequence[Float32Array]) -> list[Float32Array]:
        """One classifier after the other, one box after the other."""
        return [
            classifier.classify_rgb(self.image, wanted)
            for classifier, wanted in zip(self.classifiers, boxes, strict=True)
        ]


class HostEyes:
    """`Eyes` on the CPU: a frame is decoded once for all."""

    def __init__(self, detectors: Sequence[Detector], classifiers: Sequence[Classifier]) -> None:
        self._detectors, self._classifiers = tuple(detectors), tuple(classifiers)

    def open(self, view: str, frame: CameraFrame) -> HostPicture:
        """``frame``, decoded."""
        del view
        return HostPicture(to_rgb(frame), self._detectors, self._classifiers)

    def close(self) -> None:
        """Nothing is its own."""
