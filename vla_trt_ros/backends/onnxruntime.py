"""ONNX Runtime on the CPU: the default backend."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

from vla_trt_ros.backends.base import Buffers, EngineSource
from vla_trt_ros.backends.host import HostEngine
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BackendError

_DTYPES = {
    'tensor(float)': 'float32',
    'tensor(float16)': 'float16',
    'tensor(bfloat16)': 'bfloat16',
    'tensor(int64)': 'int64',
    'tensor(bool)': 'bool',
}


class OnnxRuntimeEngine(HostEngine):
    """One session, its inputs and outputs bound to fixed arrays."""

    def __init__(self, source: EngineSource, buffers: Buffers) -> None:
        self._session: Any = _open(source)
        _check(source.name, 'input', source.inputs, self._session.get_inputs())
        _check(source.name, 'output', source.outputs, self._session.get_outputs())
        super().__init__(source, buffers)
        self._binding = self._session.io_binding()
        for name, array in self._inputs.items():
            self._binding.bind_input(
                name, 'cpu', 0, array.dtype.type, array.shape, array.ctypes.data
            )
        for name, array in self._outputs.items():
            self._binding.bind_output(
                name, 'cpu', 0, array.dtype.type, array.shape, array.ctypes.data
            )

    def _run(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise BackendError(f'{self.name}: ONNX Runtime failed: {error}') from error

    def close(self) -> None:
        """Free the session."""
        super().close()
        self._binding = self._session = None


def runtime_version() -> str:
    """For people: 'onnxruntime 1.31.1'."""
    return f'onnxruntime {ort.__version__}'


def _open(source: EngineSource) -> ort.InferenceSession:
    if source.file is None or not source.file.is_file():
        raise BackendError(
            f'{source.name}: {source.file} does not exist; export the bundle again.'
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = source.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Idle threads that spin would take the camera path's core.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    try:
        return ort.InferenceSession(str(source.file), options, providers=['CPUExecutionProvider'])
    except Exception as error:
        raise BackendError(
            f'{source.name}: ONNX Runtime {ort.__version__} cannot load {source.file}: {error}'
        ) from error


def _check(engine: str, role: str, specs: tuple[TensorSpec, ...], nodes: Any) -> None:
    found = {
        n.name: TensorSpec(n.name, tuple(n.shape), _DTYPES.get(n.type, n.type)) for n in nodes
    }
    for spec in specs:
        have = found.pop(spec.name, None)
        if have != spec:
            was = f'{have.dtype} {list(have.shape)}' if have else 'missing'
            raise BackendError(
                f'{engine}: {role} {spec.name!r} is {was} in the file, the manifest says '
                f'{spec.dtype} {list(spec.shape)}; export the bundle again.'
            )
    for name in found:
        raise BackendError(f'{engine}: the file has one more {role}, {name!r}; export it again.')
