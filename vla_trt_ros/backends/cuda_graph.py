"""Hand-tuned CUDA-graph stages: a room kept for them. Choosing this backend is an error in this
release.
"""

from __future__ import annotations

from vla_trt_ros.backends.base import Buffers, EngineSource
from vla_trt_ros.errors import BackendError


class CudaGraphEngine:
    """Refuses every engine."""

    def __init__(self, source: EngineSource, buffers: Buffers) -> None:
        del buffers
        raise BackendError(
            f'{source.name}: backend cuda_graph is not in this release yet; use platform cpu, '
            'whose stages run on onnxruntime.'
        )
