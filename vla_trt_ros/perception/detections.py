"""What a detector found in one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.datatypes import Float32Array

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Detection:
    """One box, in pixels of the camera's own picture. ``x`` and ``y`` are its centre, counted from
    the picture's upper left corner, as in vision_msgs/BoundingBox2D.
    """

    label: str
    label_id: int
    score: float
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Detections:
    """The N boxes of one picture, the best first.

    ``boxes`` float32 [N, 4]: left, upper, right and lower edge, pixels of the camera's own
    picture, inside it; the pixel in the corner covers 0 to 1. ``scores`` float32 [N], 0 to 1,
    falling. ``labels`` int64 [N], places in the detector's list of labels.
    """

    boxes: Float32Array
    scores: Float32Array
    labels: Int64Array

    @staticmethod
    def none() -> Detections:
        """Nothing found."""
        return Detections(
            np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64)
        )

    def __len__(self) -> int:
        return len(self.scores)

    def of(self, label_ids: Sequence[int]) -> Detections:
        """Only those whose label is one of ``label_ids``."""
        rows = np.isin(self.labels, np.asarray(label_ids, np.int64))
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows])

    def each(self, names: Sequence[str]) -> Iterator[Detection]:
        """One by one; ``names`` are the detector's labels."""
        for (left, upper, right, lower), score, label in zip(
            self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
        ):
            yield Detection(
                names[label],
                label,
                score,
                (left + right) / 2,
                (upper + lower) / 2,
                right - left,
                lower - upper,
            )
