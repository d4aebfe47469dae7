"""Backends by name; each is imported when it is used."""

from __future__ import annotations

from importlib import import_module

from vla_trt_ros.backends.base import Buffers, Engine, EngineSource
from vla_trt_ros.errors import BackendError

BACKENDS = {
    'onnxruntime': 'vla_trt_ros.backends.onnxruntime:OnnxRuntimeEngine',
    'tensorrt': 'vla_trt_ros.backends.tensorrt:TensorRTEngine',
    'cuda_graph': 'vla_trt_ros.policies.pi05.cuda.engine:CudaGraphEngine',
    'onnx_graph': 'vla_trt_ros.backends.onnx_graph.engine:OnnxGraphEngine',
    'null': 'vla_trt_ros.backends.null:NullEngine',
}
_EXTRAS = {'tensorrt': 'tensorrt', 'cuda_graph': 'cuda-graph', 'onnx_graph': 'cuda-graph'}
"""Where the packages of a backend are listed in pyproject.toml."""


def load_engine(backend: str, source: EngineSource, buffers: Buffers) -> Engine:
    """Load ``source`` on ``backend`` and bind it to ``buffers`` (see base.Engine).

    BackendError if the backend is unknown, not installed or refuses the engine. There is no
    fallback to another backend.
    """
    try:
        module, _, name = BACKENDS[backend].partition(':')
    except KeyError:
        raise BackendError(
            f'backend {backend!r} is none of {", ".join(BACKENDS)}; correct the platform file.'
        ) from None
    try:
        kind = getattr(import_module(module), name)
    except ImportError as error:
        extra = _EXTRAS.get(backend)
        how = f"pip install 'vla_trt_ros[{extra}]'" if extra else 'install it'
        raise BackendError(
            f'backend {backend} needs {error.name}, which is not installed: {how}, or choose '
            'a platform file that does not name this backend.'
        ) from error
    engine: Engine = kind(source, buffers)
    return engine
