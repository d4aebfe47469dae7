"""Of a dense output only what passes the score leaves the GPU: one launch of candidates.cu.

A link of a captured chain, behind the network. Rows are written straight into the host's memory,
so few boxes cost few bytes; the output itself, megabytes of it, is never copied.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vla_trt_ros.backends.base import Array
from vla_trt_ros.gpu.cuda import clear, device_address, pinned
from vla_trt_ros.gpu.kernels import Kernel
from vla_trt_ros.gpu.mirror import Mirror, mirror_of
from vla_trt_ros.perception.detections import Detections
from vla_trt_ros.perception.heads import chosen
from vla_trt_ros.perception.spec import DetectorConfig
from vla_trt_ros.preprocess.cuda.frames import Launcher

SOURCE = Path(__file__).with_name('candidates.cu')
BLOCK = 128
ROW = np.dtype(
    [
        ('box', np.float32, 4),
        ('score', np.float32),
        ('label', np.int32),
        ('place', np.int32),
        ('unused', np.int32),
    ]
)
"""candidates.cu's Row."""


class Candidates:
    """What passes ``least`` of ``output``, float32 [1, 4 + labels, places], a page-locked array
    with GPU memory (`mirror_of`). ``kernel`` is candidates.cu, compiled for this GPU unless given.
    """

    def __init__(
        self, name: str, output: Array, least: float, kernel: Launcher | None = None
    ) -> None:
        self.name = name
        self._kernel = kernel or Kernel(SOURCE, 'best_labels')
        self._count = pinned((1,), np.int32)
        self.inputs: Mapping[str, Array] = {'dense': output}
        self.outputs: Mapping[str, Array] = {'count': self._count}
        self.mirrors: Mapping[str, Mirror] = {
            'dense': mirror_of(output),
            'count': mirror_of(self._count),
        }
        self.mirrors['dense'].read = self.mirrors['count'].written = True
        _, rows, places = output.shape
        self._rows = pinned((places,), ROW, mapped=True)
        self._grid = (-(-places // BLOCK), 1, 1)
        self._arguments = (
            ctypes.c_void_p(self.mirrors['dense'].address),
            ctypes.c_int(rows - 4),
            ctypes.c_int(places),
            ctypes.c_float(least),
            ctypes.c_void_p(self.mirrors['count'].address),
            ctypes.c_void_p(device_address(self._rows)),
        )

    def enqueue(self, *, stream: int) -> None:
        """Queue it on ``stream``."""
        clear(self.mirrors['count'].address, self._count.nbytes, stream)
        self._kernel.launch(self._grid, (BLOCK, 1, 1), self._arguments, stream)

    def detections(self, config: DetectorConfig, max_detections: int) -> Detections:
        """As `heads.dense_boxes` of the same output; when the launch is done."""
        rows = self._rows[: int(self._count[0])]
        rows = rows[np.argsort(rows['place'])]
        labels = rows['label'].astype(np.int64)
        return chosen(rows['box'], rows['score'], labels, config, max_detections)
