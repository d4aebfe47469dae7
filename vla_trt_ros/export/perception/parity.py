"""How far a graph at another precision is from float32: boxes for a detector, labels for a
classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort

from vla_trt_ros.datatypes import Float32Array
from vla_trt_ros.errors import BackendError
from vla_trt_ros.export.perception.accuracy import iou
from vla_trt_ros.perception.detections import Detections
from vla_trt_ros.perception.heads import decode
from vla_trt_ros.perception.spec import ClassifierConfig, DetectorConfig

LOW = 0.05
"""Random weights have no surer boxes; a threshold of use would leave nothing to compare."""


@dataclass(frozen=True, slots=True)
class Parity:
    """``same``: share of float32's boxes that are found with an IoU of 0.5 or more and the same
    label (both ways, the lesser share), or of pictures with the same best label. ``overlap``:
    their mean IoU. ``score``: largest difference of a score or probability of those.
    """

    name: str
    same: float
    overlap: float
    score: float
    compared: int

    def line(self) -> str:
        """For people."""
        if not self.compared:
            return f'{self.name}: no box with a score above {LOW} to compare with fp32'
        boxes = f', mean IoU {self.overlap:.3f}' if self.overlap else ''
        return (
            f'{self.name}: {100 * self.same:.1f} % of {self.compared} as in fp32{boxes}, scores '
            f'within {self.score:.3f}'
        )


def compare(
    name: str,
    reference: onnx.ModelProto,
    other: onnx.ModelProto,
    config: DetectorConfig | ClassifierConfig,
    images: Sequence[Float32Array],
) -> Parity:
    """``other`` against ``reference`` in ONNX Runtime on a CPU. BackendError where it does not
    load there.
    """
    run, run_other = runner(reference), runner(other)
    same = total = 0
    overlaps: list[float] = []
    scores: list[float] = []
    for image in images:
        ours, theirs = run(image), run_other(image)
        if isinstance(config, ClassifierConfig):
            total += 1
            same += int(ours.argmax() == theirs.argmax())
            scores.append(float(np.abs(_shares(ours, config) - _shares(theirs, config)).max()))
            continue
        a, b = (decode(x, config, min(LOW, config.score_threshold), 100) for x in (ours, theirs))
        pairs = _pairs(a, b)
        total += max(len(a), len(b))
        same += len(pairs)
        overlaps += [p[0] for p in pairs]
        scores += [p[1] for p in pairs]
    return Parity(
        name,
        same / total if total else 1.0,
        float(np.mean(overlaps)) if overlaps else 0.0,
        max(scores, default=0.0),
        total,
    )


def runner(model: onnx.ModelProto) -> Callable[[Float32Array], Float32Array]:
    """A function of one picture."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer):
        # Optimised, ONNX Runtime 1.31 gives other numbers for 8 bits between float16 than the
        # operators are defined to, and has no kernels for some float8 graphs.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=['CPUExecutionProvider']
        )
    except Exception as error:  # ONNX Runtime's own exceptions have no common base
        raise BackendError(f'ONNX Runtime {ort.__version__} cannot load it: {error}') from error
    entry = session.get_inputs()[0].name

    def run(image: Float32Array) -> Float32Array:
        return np.asarray(session.run(None, {entry: image})[0], np.float32)

    return run


def _pairs(ours: Detections, theirs: Detections) -> list[tuple[float, float]]:
    """IoU and difference of scores of each box of ``ours`` that ``theirs`` has too."""
    table = iou(ours.boxes, theirs.boxes)
    table[ours.labels[:, None] != theirs.labels[None]] = 0
    found = []
    for i in range(len(ours)):
        best = int(table[i].argmax()) if len(theirs) else 0
        if len(theirs) and table[i, best] >= 0.5:
            difference = abs(float(ours.scores[i] - theirs.scores[best]))
            found.append((float(table[i, best]), difference))
            table[:, best] = 0
    return found


def _shares(output: Float32Array, config: ClassifierConfig) -> Float32Array:
    if config.output == 'probabilities':
        return output
    raised = np.exp(output - output.max())
    return np.asarray(raised / raised.sum(), np.float32)
