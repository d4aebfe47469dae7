"""One detector or classifier on a GPU: a kernel writes its input, one CUDA graph does the rest.

Both only queue; who calls them orders readers of the frame and waits (gpu_eyes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np

from vla_trt_ros.backends.base import DeviceEngine, Engine
from vla_trt_ros.backends.captured_chain import CapturedChain, Link
from vla_trt_ros.datatypes import Float32Array
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu.cuda import Stream, download, pinned
from vla_trt_ros.gpu_frame import GpuFrame
from vla_trt_ros.perception.candidates import Candidates
from vla_trt_ros.perception.classifier import Classifier
from vla_trt_ros.perception.detections import Detections
from vla_trt_ros.perception.detector import Detector
from vla_trt_ros.perception.heads import decode
from vla_trt_ros.preprocess.crop import crop_corners
from vla_trt_ros.preprocess.cuda.frames import Launcher
from vla_trt_ros.preprocess.cuda.squares import SquareWriter
from vla_trt_ros.preprocess.letterbox import letterbox


@dataclass(frozen=True, slots=True)
class Kernels:
    """squares.cu and candidates.cu; each is compiled for this GPU unless given."""

    squares: Launcher | None = None
    candidates: Launcher | None = None


class Captured:
    """``links``, captured on ``stream`` behind what writes the input of the first one, ``engine``.
    Outputs named in ``kept`` stay on the GPU.
    """

    def __init__(
        self,
        engine: DeviceEngine,
        links: Collection[Link],
        stream: Stream,
        kept: Collection[str] = (),
    ) -> None:
        (name,) = engine.inputs
        self.address = engine.mirrors[name].address
        """Of the input on the GPU: float32 [1, 3, side, side]."""
        self.stream = stream.handle
        self._chain = CapturedChain(tuple(links), on_gpu={name, *kept}, stream=stream)

    def launch(self) -> None:
        """Queue one run."""
        self._chain.launch(self.stream)

    def close(self) -> None:
        """Destroy the graph."""
        self._chain.close()


class GpuDetector:
    """``detector``, captured on ``stream``. BackendError where its engine is not on the GPU."""

    def __init__(self, detector: Detector, stream: Stream, kernels: Kernels) -> None:
        self._detector = detector
        engine = on_gpu(detector.name, detector.engine)
        (output,) = engine.outputs.values()
        links: list[Link] = [engine]
        config, least, most = detector.config, detector.score_threshold, detector.max_detections
        self._found: Callable[[], Detections] = partial(decode, output, config, least, most)
        if config.head == 'dense':
            name = f'candidates of {detector.name}'
            candidates = Candidates(name, output, least, kernels.candidates)
            links.append(candidates)
            self._found = partial(candidates.detections, config, most)
        self._writer = SquareWriter(detector.image_size, detector.levels, kernels.squares)
        self._run = Captured(engine, links, stream)

    def queue(self, gpu: GpuFrame) -> None:
        """Queue a look at ``gpu``."""
        place = letterbox(gpu.width, gpu.height, self._writer.side)
        self._writer.fit(gpu, place, self._run.address, self._run.stream)
        self._run.launch()

    def detections(self, width: int, height: int) -> Detections:
        """Of the last look, at a picture of ``width`` x ``height``, when it is done."""
        place = letterbox(width, height, self._writer.side)
        return self._detector.placed(self._found(), place)

    def close(self) -> None:
        """Destroy the graph; the engine stays."""
        self._run.close()


class GpuClassifier:
    """``classifier``, captured on ``stream``, for ``most`` boxes of a picture. BackendError where
    its engine is not on the GPU.
    """

    def __init__(
        self, classifier: Classifier, stream: Stream, most: int, kernels: Kernels
    ) -> None:
        self._classifier = classifier
        engine = on_gpu(classifier.name, classifier.engine)
        ((name, _),) = engine.outputs.items()
        self._output = engine.mirrors[name].address
        self._told = pinned((most, len(classifier.labels)), np.float32)
        self._rows: list[int] = []
        self._asked = 0
        self._writer = SquareWriter(classifier.image_size, classifier.levels, kernels.squares)
        self._run = Captured(engine, [engine], stream, kept=(name,))

    def queue(self, gpu: GpuFrame, boxes: Float32Array) -> None:
        """Queue a run for each of ``boxes`` [N, 4], in pixels of ``gpu``, that shows something."""
        self._rows, self._asked = [], len(boxes)
        run, margin = self._run, self._classifier.config.margin
        for row, box in enumerate(boxes.tolist()):
            corners = crop_corners(tuple(box), gpu.width, gpu.height, margin)
            if corners is None:
                continue
            self._writer.cut(gpu, corners, run.address, run.stream)
            run.launch()
            download(self._told[len(self._rows)], self._output, run.stream)
            self._rows.append(row)

    def probabilities(self) -> Float32Array:
        """Of the last boxes, float32 [N, labels], when they are done; zeros: nothing to see."""
        found = np.zeros((self._asked, self._told.shape[1]), np.float32)
        found[self._rows] = self._told[: len(self._rows)]
        for row in self._rows:
            self._classifier.finish(found[row])
        return found

    def close(self) -> None:
        """Destroy the graph; the engine stays."""
        self._run.close()


def on_gpu(name: str, engine: Engine) -> DeviceEngine:
    """``engine``, which runs on the GPU. BackendError where it does not."""
    if not getattr(engine, 'on_gpu', False):
        raise BackendError(
            f'{name}: its engine runs on the CPU; choose a platform whose perception runs on the '
            'GPU: tensorrt or onnx_graph.'
        )
    return cast(DeviceEngine, engine)
