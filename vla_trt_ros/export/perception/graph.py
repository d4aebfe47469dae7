"""ONNX files of detectors and classifiers: what they read, write and call their labels."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BundleError, ConfigError
from vla_trt_ros.perception.spec import Head

_DTYPES = {
    TensorProto.FLOAT: 'float32',
    TensorProto.FLOAT16: 'float16',
    TensorProto.INT64: 'int64',
}


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A float32 graph with one input, float32 [1, 3, side, side], and one output."""

    model: onnx.ModelProto
    images: TensorSpec
    output: TensorSpec
    labels: tuple[str, ...]
    """Those of its metadata; empty where it has none."""

    @property
    def side(self) -> int:
        """Of the square that it reads, pixels."""
        return self.images.shape[2]


def read_network(path: Path) -> NetworkFile:
    """The graph at ``path``. BundleError where it is no ONNX or not of the form above."""
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's own exceptions differ by implementation
        raise BundleError(f'{path} cannot be read as ONNX ({error}); export it again.') from error
    return read_model(model, str(path))


def read_model(model: onnx.ModelProto, name: str) -> NetworkFile:
    """As `read_network`, of a graph that is loaded already; ``name`` leads the messages."""
    graph = model.graph
    weights = {t.name for t in graph.initializer}
    inputs = [_spec(v, name) for v in graph.input if v.name not in weights]
    outputs = [_spec(v, name) for v in graph.output]
    if len(inputs) != 1 or len(outputs) != 1:
        raise BundleError(
            f'{name} has {len(inputs)} inputs and {len(outputs)} outputs; a detector or '
            'classifier has one of each.'
        )
    (images,), (output,) = inputs, outputs
    shape = images.shape
    square = len(shape) == 4 and shape[:2] == (1, 3) and shape[2] == shape[3]
    if not square or images.dtype != 'float32' or output.dtype != 'float32':
        raise BundleError(
            f'{name} reads {images.dtype} {list(shape)} and writes {output.dtype} '
            f'{list(output.shape)}; wanted is float32 [1, 3, side, side] to float32: export it '
            'in float32 for one square picture.'
        )
    return NetworkFile(model, images, output, _labels(model, name))


def with_labels(model: onnx.ModelProto, labels: Sequence[str]) -> onnx.ModelProto:
    """``model`` with its labels in the metadata, as ultralytics writes them. It is altered."""
    names = repr(dict(enumerate(labels)))
    kept = [item for item in model.metadata_props if item.key != 'names']
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key='names', value=names)
    return model


def head_of(output: TensorSpec, labels: int) -> Head:
    """What a detector's output shape says of its head; ConfigError where it fits neither."""
    shape = output.shape
    if len(shape) == 3 and shape[0] == 1:
        if shape[2] == 6:
            return 'boxes'
        if shape[1] == 4 + labels:
            return 'dense'
    raise ConfigError(
        f'the output {list(shape)} is neither [1, N, 6] nor [1, 4 + labels, N] with {labels} '
        'labels; give the labels of this network, and export a detector alone (no masks, poses or '
        'rotated boxes).'
    )


def _labels(model: onnx.ModelProto, name: str) -> tuple[str, ...]:
    for item in model.metadata_props:
        if item.key == 'names':
            try:
                names = ast.literal_eval(item.value)
                return tuple(str(names[i]) for i in range(len(names)))
            except (ValueError, SyntaxError, KeyError, TypeError) as error:
                raise BundleError(
                    f'{name}: its labels {item.value[:60]!r} cannot be read ({error}); give '
                    '--labels.'
                ) from error
    return ()


def _spec(value: onnx.ValueInfoProto, name: str) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value for d in tensor.shape.dim)
    if not shape or min(shape) < 1:
        raise BundleError(
            f'{name}: {value.name} has a dynamic shape {list(shape)}; export it with fixed ones.'
        )
    return TensorSpec(value.name, shape, _DTYPES.get(tensor.elem_type, str(tensor.elem_type)))
