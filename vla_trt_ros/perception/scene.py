"""Everything that detectors and classifiers find in one camera frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from vla_trt_ros.datatypes import CameraFrame, Float32Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.gpu.cuda import traffic
from vla_trt_ros.perception.classifier import NONE, Classifier, best_labels
from vla_trt_ros.perception.detections import Detection, Detections
from vla_trt_ros.perception.detector import Detector
from vla_trt_ros.perception.picture import Eyes, HostEyes, Picture


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
    or a classifier that is for a class which no detector knows. ``eyes`` are what looks: on the
    CPU, or gpu_eyes.py's.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        classifiers: Sequence[Classifier] = (),
        *,
        max_detections: int = 100,
        eyes: Callable[[Sequence[Detector], Sequence[Classifier]], Eyes] = HostEyes,
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
        self._eyes = eyes(self.detectors, self.classifiers)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names that a box can have, those of the first detector first."""
        return tuple(dict.fromkeys(label for d in self.detectors for label in d.labels))

    def look(self, view: str, frame: CameraFrame) -> Scene:
        """What ``frame`` of camera ``view`` shows. BadImage for one that does not decode."""
        begin, before = time.perf_counter(), traffic.uploads
        picture = self._eyes.open(view, frame)
        decoded = time.perf_counter()
        found = picture.detect()
        detected = time.perf_counter()
        findings, classes, crops = self._classify(picture, found)
        classified = time.perf_counter()
        return Scene(
            view,
            frame.stamp_ns,
            frame.frame_id,
            width=picture.width,
            height=picture.height,
            findings=findings,
            classes=classes,
            crops=crops,
            decode_ms=(decoded - begin) * 1e3,
            detect_ms=(detected - decoded) * 1e3,
            classify_ms=(classified - detected) * 1e3,
            uploads=traffic.uploads - before,
        )

    def close(self) -> None:
        """Free all engines."""
        with ExitStack() as stack:
            for detector in self.detectors:
                stack.callback(detector.close)
            for classifier in self.classifiers:
                stack.callback(classifier.close)
            stack.callback(self._eyes.close)

    def _classify(
        self, picture: Picture, found: list[Detections]
    ) -> tuple[tuple[Finding, ...], dict[str, tuple[tuple[str, float], ...]], int]:
        boxes = [
            box
            for detector, detections in zip(self.detectors, found, strict=True)
            for box in detections.each(detector.labels)
        ]
        boxes = sorted(boxes, key=lambda box: -box.score)[: self._most]
        asked = [
            [k for k, b in enumerate(boxes) if not c.of_class or b.label in c.of_class]
            for c in self.classifiers
        ]
        told = picture.classify([_corners([boxes[k] for k in rows]) for rows in asked])
        guesses: list[list[Guess]] = [[] for _ in boxes]
        classes: dict[str, tuple[tuple[str, float], ...]] = {}
        for classifier, rows, probabilities in zip(self.classifiers, asked, told, strict=True):
            labels, scores = best_labels(probabilities)
            for k, row, label, score in zip(rows, probabilities, labels, scores, strict=True):
                if label == NONE:
                    continue
                guess = Guess(classifier.name, classifier.labels[label], float(score))
                guesses[k].append(guess)
                classes.setdefault(classifier.name, _ranked(classifier.labels, row))
        findings = tuple(Finding(b, tuple(g)) for b, g in zip(boxes, guesses, strict=True))
        return findings, classes, sum(map(len, asked))


def _corners(boxes: Sequence[Detection]) -> Float32Array:
    centre = np.array([(b.x, b.y) for b in boxes], np.float32).reshape(-1, 2)
    half = np.array([(b.width, b.height) for b in boxes], np.float32).reshape(-1, 2) / 2
    return np.concatenate((centre - half, centre + half), axis=1)


def _ranked(labels: tuple[str, ...], row: Float32Array) -> tuple[tuple[str, float], ...]:
    return tuple((labels[k], float(row[k])) for k in np.argsort(-row, kind='stable'))
