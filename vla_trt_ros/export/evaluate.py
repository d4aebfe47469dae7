"""Runs a stage's ONNX graph for its numbers, whatever its precision; never for its speed.

ONNX Runtime runs float32 and int8 graphs on a CPU. The others run in onnx's reference evaluator,
an implementation in NumPy that follows the operators' specification. Products, norms, softmax and
GELU are ours: they compute in float32 and round once, as a GPU's kernels do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from vla_trt_ros.backends.base import Array
from vla_trt_ros.errors import BackendError
from vla_trt_ros.export.quantize.draft import stored_halves
from vla_trt_ros.export.quantize.numerics import E2M1_MAX, E4M3_MAX


class Graph(Protocol):
    """A loaded stage."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name. Inputs that the graph lacks are ignored; floats are cast to its own."""
        ...


def load_graph(path: Path) -> Graph:
    """The graph at ``path``; BackendError if neither runtime reads it."""
    try:
        model = onnx.load(path, load_external_data=False)
        if _runs_in_ort(model):
            return _OrtGraph(path)
        return _ReferenceGraph(onnx.load(path))
    except Exception as error:  # either library raises what it likes
        raise BackendError(f'{path} cannot be loaded: {error}') from error


def versions() -> str:
    """What judges, for a report."""
    return (
        f'onnx reference evaluator {onnx.__version__} with float32 accumulation; ONNX Runtime '
        f'{ort.__version__}; no GPU'
    )


def _runs_in_ort(model: onnx.ModelProto) -> bool:
    stored = stored_halves(model)  # float32 weights in 16 bits; the runtime folds their casts
    types = {t.data_type for t in model.graph.initializer if t.name not in stored}
    types |= {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
    known = {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT8,
        onnx.TensorProto.INT32,
        onnx.TensorProto.INT64,
        onnx.TensorProto.BOOL,
    }
    return types <= known


class _OrtGraph:
    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = ort.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider']
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        feed = {i.name: _plain(inputs[i.name], i.type) for i in self._session.get_inputs()}
        names = [o.name for o in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, feed), strict=True))


def _plain(array: Array, kind: str) -> Array:
    return array.astype(np.float32) if kind == 'tensor(float)' else array


class _ReferenceGraph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._types = {
            v.name: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)
            for v in model.graph.input
        }
        self._outputs = [v.name for v in model.graph.output]
        self._evaluator: Any = ReferenceEvaluator(model, new_ops=[*_OPERATORS])

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        feed = {name: inputs[name].astype(dtype) for name, dtype in self._types.items()}
        with np.errstate(over='ignore'):  # a mask plus a logit may be -Inf, which softmax takes
            return dict(zip(self._outputs, self._evaluator.run(None, feed), strict=True))


class MatMul(OpRun):
    """Products summed in float32 and rounded once."""

    def _run(self, a: Array, b: Array) -> tuple[Array]:
        wide = np.matmul(a.astype(np.float32), b.astype(np.float32))
        return (wide.astype(a.dtype),)


class LayerNormalization(OpRun):
    """Float32 inside, as its attribute stash_type says; over the last axis."""

    def _run(
        self,
        x: Array,
        scale: Array,
        bias: Array,
        axis: int = -1,
        epsilon: float = 1e-5,
        stash_type: int = 1,
    ) -> tuple[Array]:
        assert axis in (-1, x.ndim - 1)
        wide = x.astype(np.float32)
        centred = wide - wide.mean(axis=-1, keepdims=True)
        spread = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + epsilon)
        out = centred / spread * scale.astype(np.float32) + bias.astype(np.float32)
        return (out.astype(x.dtype),)


class Softmax(OpRun):
    """Float32 inside, as in a fused attention."""

    def _run(self, x: Array, axis: int = -1) -> tuple[Array]:
        wide = x.astype(np.float32)
        powers = np.exp(wide - wide.max(axis=axis, keepdims=True))
        return ((powers / powers.sum(axis=axis, keepdims=True)).astype(x.dtype),)


class Gelu(OpRun):
    """The tanh form, float32 inside."""

    def _run(self, x: Array, approximate: str = 'none') -> tuple[Array]:
        assert approximate == 'tanh'
        wide = x.astype(np.float32)
        cube = wide * wide * wide  # twenty times as fast as NumPy's power
        inner = np.float32(np.sqrt(2.0 / np.pi)) * (wide + np.float32(0.044715) * cube)
        return ((0.5 * wide * (1.0 + np.tanh(inner))).astype(x.dtype),)


class TRT_FP4DynamicQuantize(OpRun):  # noqa: N801  the operator's name
    """TensorRT's: E2M1 values, and an E4M3 scale per block of the last axis, times ``scale``."""

    op_domain = 'trt'

    def _run(
        self, x: Array, scale: Array, axis: int = -1, block_size: int = 16, scale_type: int = 17
    ) -> tuple[Array, Array]:
        assert axis in (-1, x.ndim - 1)
        assert scale_type == onnx.TensorProto.FLOAT8E4M3FN
        blocks = x.astype(np.float32).reshape(*x.shape[:-1], -1, block_size)
        outer = np.float32(scale)
        amax = np.abs(blocks).max(axis=-1)
        scales = (amax / E2M1_MAX / outer).clip(0, E4M3_MAX).astype(ml_dtypes.float8_e4m3fn)
        wide = (scales.astype(np.float32) * outer)[..., None]
        scaled = np.divide(blocks, wide, out=np.zeros_like(blocks), where=wide > 0)
        values = scaled.clip(-E2M1_MAX, E2M1_MAX).astype(ml_dtypes.float4_e2m1fn)
        return values.reshape(x.shape), scales


_OPERATORS = (MatMul, LayerNormalization, Softmax, Gelu, TRT_FP4DynamicQuantize)
