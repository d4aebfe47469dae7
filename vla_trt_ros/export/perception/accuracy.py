"""How good a detector is: mean average precision, as COCO counts it, at one overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_trt_ros.datatypes import Float32Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.perception.detections import Detections, Int64Array

_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """``per_label`` has the average precision of each label that is in the pictures at all."""

    mean: float
    per_label: dict[str, float]
    pictures: int
    objects: int


def mean_average_precision(
    found: Sequence[Detections],
    truth: Sequence[tuple[Float32Array, Int64Array]],
    labels: Sequence[str],
    overlap: float = 0.5,
) -> Accuracy:
    """Accuracy of ``found`` against ``truth``, (boxes [N, 4], labels [N]) of each picture.

    A detection counts where it has an IoU of ``overlap`` or more with an object of its label that
    no better detection has taken. ConfigError where there is nothing to find.
    """
    per_label = {}
    for label, name in enumerate(labels):
        scores, hits, objects = [], [], 0
        for detections, (boxes, classes) in zip(found, truth, strict=True):
            wanted = boxes[classes == label]
            mine = detections.of((label,))
            objects += len(wanted)
            scores += mine.scores.tolist()
            hits += _hits(mine.boxes, wanted, overlap)
        if objects:
            per_label[name] = _average_precision(np.array(scores), np.array(hits, bool), objects)
    if not per_label:
        raise ConfigError('no picture has an object in it; give labelled ones.')
    count = sum(len(classes) for _, classes in truth)
    return Accuracy(float(np.mean(list(per_label.values()))), per_label, len(truth), count)


def iou(ours: Float32Array, theirs: Float32Array) -> Float32Array:
    """Overlap of every box of ``ours`` [N, 4] with every one of ``theirs`` [M, 4]: [N, M]."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(b[:, 2:] - b[:, :2], 0, None).prod(axis=1) for b in (ours, theirs)]
    return np.asarray(
        inner / np.maximum(areas[0][:, None] + areas[1][None] - inner, 1e-9), np.float32
    )


def _hits(boxes: Float32Array, wanted: Float32Array, overlap: float) -> list[bool]:
    """Of each box, best first: does it find an object that is still to be found?"""
    table = iou(boxes, wanted)
    hits = []
    for row in table:
        best = int(row.argmax()) if len(row) else -1
        hits.append(best >= 0 and bool(row[best] >= overlap))
        if hits[-1]:
            table[:, best] = -1
    return hits


def _average_precision(
    scores: np.typing.NDArray[np.float64], hits: np.typing.NDArray[np.bool_], objects: int
) -> float:
    right = np.cumsum(hits[np.argsort(-scores, kind='stable')])
    recall = right / objects
    precision = right / np.arange(1, len(right) + 1)
    # Precision at a recall is the best at that recall or a higher one.
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(recall, _RECALLS)].mean())
