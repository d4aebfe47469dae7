"""From a network's output to boxes in its square, best first, at most so many."""

from __future__ import annotations

import numpy as np

from vla_trt_ros.datatypes import Float32Array
from vla_trt_ros.perception.detections import Detections, Int64Array
from vla_trt_ros.perception.spec import DetectorConfig

MAX_CANDIDATES = 3000
"""Places of a dense output that are looked at, the best ones: bounds the time of `suppress`."""


def decode(
    output: Float32Array, config: DetectorConfig, score_threshold: float, max_detections: int
) -> Detections:
    """``output`` as spec.py has it -> boxes in pixels of the network's square, which may reach
    over its edges. Scores that are no numbers, and labels that do not exist, are dropped.
    """
    read = final_boxes if config.head == 'boxes' else dense_boxes
    return read(output, config, score_threshold, max_detections)


def final_boxes(
    output: Float32Array, config: DetectorConfig, score_threshold: float, max_detections: int
) -> Detections:
    """Of head ``boxes``, float32 [1, N, 6]."""
    rows = output[0]
    rows = rows[(rows[:, 4] > score_threshold) & np.isfinite(rows).all(axis=1)]
    labels = rows[:, 5].astype(np.int64)
    known = (labels >= 0) & (labels < len(config.labels))
    rows, labels = rows[known], labels[known]
    best = np.argsort(-rows[:, 4], kind='stable')[:max_detections]
    return Detections(rows[best, :4], rows[best, 4], labels[best])


def dense_boxes(
    output: Float32Array, config: DetectorConfig, score_threshold: float, max_detections: int
) -> Detections:
    """Of head ``dense``, float32 [1, 4 + labels, N]: each place's best label, then `suppress`."""
    scores = output[0, 4:]
    # The threshold first, on one pass over the scores: nearly all places are empty.
    places = np.flatnonzero(scores.max(axis=0) > score_threshold)
    labels = scores[:, places].argmax(axis=0)
    best = scores[labels, places]
    return chosen(output[0, :4, places], best, labels, config, max_detections)


def chosen(
    boxes: Float32Array,
    scores: Float32Array,
    labels: Int64Array,
    config: DetectorConfig,
    max_detections: int,
) -> Detections:
    """What `suppress` leaves of candidates in the order of their places; ``boxes`` [N, 4] are
    centre, width and height.
    """
    order = np.argsort(-scores, kind='stable')[:MAX_CANDIDATES]
    boxes, labels, best = boxes[order], labels[order], scores[order]
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    boxes = np.concatenate((centre - half, centre + half), axis=1, dtype=np.float32)
    finite = np.isfinite(boxes).all(axis=1)
    boxes, labels, best = boxes[finite], labels[finite], best[finite]
    kept = suppress(boxes, labels, config.iou_threshold, max_detections)
    return Detections(boxes[kept], best[kept], labels[kept].astype(np.int64))


def suppress(
    boxes: Float32Array, labels: np.typing.NDArray[np.int64], limit: float, count: int
) -> list[int]:
    """Rows that stay of ``boxes`` [N, 4], the best first: greedily, label by label, a row is
    dropped where it overlaps a better one that stays by an IoU above ``limit``; ``count`` at most.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < count:
        first, rest = left[0], left[1:]
        kept.append(int(first))
        low = np.maximum(boxes[first, :2], boxes[rest, :2])
        high = np.minimum(boxes[first, 2:], boxes[rest, 2:])
        inner = np.clip(high - low, 0, None).prod(axis=1)
        union = area[first] + area[rest] - inner
        left = rest[(inner <= limit * union) | (labels[rest] != labels[first])]
    return kept
