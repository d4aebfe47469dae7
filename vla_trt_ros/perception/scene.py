"""Everything that detectors and classifiers find in one camera frame."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.datatypes import CameraFrame, Float32Array, Uint8Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.perception.classifier import NONE, Classifier, best_labels
from vla_trt_ros.perception.detections import Detection, Detections
from vla_trt_ros.perception.detector import Detector


@dataclass(frozen=True, slots=True)
class Guess:
    """What a classifier makes of a box: its likeliest label, and how likely, 0 to 1."""

    classifier: str
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One box, and what each classifier that is for its label makes of it."""

    box: Detection
    guesses: tuple[Guess, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """What was found in one frame of one camera: the best box first, all labels as text."""

    view: str
    stamp_ns: int
    frame_id: str
    width: int
    height: int
    findings: tuple[Finding, ...] = ()
    classes: Mapping[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    """Classifier to (label, probability), the likeliest first, of the best box it looked at."""
    crops: int = 0
    """Boxes that a classifier looked at; a box counts once for each."""
    decode_ms: float = 0.0
    detect_ms: float = 0.0
    classify_ms: float = 0.0
    uploads: int = 0
    """Host-to-device copies that this look took."""


class Perception:
    """Detectors and classifiers that look at the same frames. Used by one thread at a time.

    ``max_detections`` bounds the boxes of a scene, over all detectors. ConfigError: no detector,
    or a classifier that is for a class which no detector knows.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        classifiers: Sequence[Classifier] = (),
        *,
        max_detections: int = 100,
    ) -> None:
        if not detectors:
            raise ConfigError('perception without a detector: name one, as detectors:=sim.')
        if max_detections < 1:
            raise ConfigError(f'max_detections {max_detections} must be 1 or more.')
        self.detectors = tuple(detectors)
        self.classifiers = tuple(classifiers)
        self._most = max_detections
        known = self.labels
        for classifier in classifiers:
            classifier.class_ids(known)
        names = [c.name for c in classifiers]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f'classifier {name!r} is named twice.')

    @property
    def labels(self) -> tuple[str, ...]:
        """Names that a box can have, those of the first detector first."""
        return tuple(dict.fromkeys(label for d in self.detectors for label in d.labels))

    def look(self, view: str, frame: CameraFrame) -> Scene:
        """What ``frame`` of camera ``view`` shows. BadImage for one that does not decode."""
        begin = time.perf_counter()
        # Here a frame that lies on a GPU (frame.gpu) will need no pixels on the host.
        image = to_rgb(frame)
        decoded = time.perf_counter()
        found = [detector.detect_rgb(image) for detector in self.detectors]
        detected = time.perf_counter()
        findings, classes, crops = self._classify(image, found)
        classified = time.perf_counter()
        return Scene(
            view,
            frame.stamp_ns,
            frame.frame_id,
            width=image.shape[1],
            height=image.shape[0],
            findings=findings,
            classes=classes,
            crops=crops,
            decode_ms=(decoded - begin) * 1e3,
            detect_ms=(detected - decoded) * 1e3,
            classify_ms=(classified - detected) * 1e3,
        )

    def close(self) -> None:
        """Free all engines."""
        with ExitStack() as stack:
            for detector in self.detectors:
                stack.callback(detector.close)
            for classifier in self.classifiers:
                stack.callback(classifier.close)

    def _classify(
        self, image: Uint8Array, found: list[Detections]
    ) -> tuple[tuple[Finding, ...], dict[str, tuple[tuple[str, float], ...]], int]:
        boxes = [
            box
            for detector, detections in zip(self.detectors, found, strict=True)
            for box in detections.each(detector.labels)
        ]
        boxes = sorted(boxes, key=lambda box: -box.score)[: self._most]
        guesses: list[list[Guess]] = [[] for _ in boxes]
        classes: dict[str, tuple[tuple[str, float], ...]] = {}
        crops = 0
        for classifier in self.classifiers:
            wanted = classifier.of_class
            rows = [k for k, box in enumerate(boxes) if not wanted or box.label in wanted]
            if not rows:
                continue
            crops += len(rows)
            probabilities = classifier.classify_rgb(image, _corners([boxes[k] for k in rows]))
            labels, scores = best_labels(probabilities)
            for k, row, label, score in zip(rows, probabilities, labels, scores, strict=True):
                if label == NONE:
                    continue
                guess = Guess(classifier.name, classifier.labels[label], float(score))
                guesses[k].append(guess)
                classes.setdefault(classifier.name, _ranked(classifier.labels, row))
        findings = tuple(Finding(b, tuple(g)) for b, g in zip(boxes, guesses, strict=True))
        return findings, classes, crops


def _corners(boxes: Sequence[Detection]) -> Float32Array:
    centre = np.array([(b.x, b.y) for b in boxes], np.float32)
    half = np.array([(b.width, b.height) for b in boxes], np.float32) / 2
    return np.concatenate((centre - half, centre + half), axis=1)


def _ranked(labels: tuple[str, ...], row: Float32Array) -> tuple[tuple[str, float], ...]:
    return tuple((labels[k], float(row[k])) for k in np.argsort(-row, kind='stable'))
