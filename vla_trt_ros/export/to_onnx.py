"""A stage as an ONNX graph with the names, shapes and dtypes of its spec."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BundleError
from vla_trt_ros.export.weightless import Traced, fill, inputs_to_pending
from vla_trt_ros.policies.pi05.spec import StageSpec

OPSET = 20
"""Read by TensorRT 10.13 and later. Never 23 in half precision: the exporter then mixes types in
RMSNormalization, and every reader refuses the file.
"""


def export_stage(stage: nn.Module, spec: StageSpec) -> onnx.ModelProto:
    """``stage`` traced at the static shapes of ``spec``, its weights inside the graph.

    BundleError if the exporter chose another opset or other tensors than asked.
    """
    parameters = dict(stage.named_parameters())
    traced = trace_stage(copy.deepcopy(stage).to('meta'), spec, prefix='')
    return fill(traced, lambda name: parameters[name].detach())


def trace_stage(stage: nn.Module, spec: StageSpec, prefix: str = 'model.') -> Traced:
    """``stage``, whose weights are on torch's meta device, at the static shapes of ``spec``.

    ``prefix`` is cut off the parameters' names. BundleError as in `export_stage`.
    """
    example = tuple(_example(tensor) for tensor in spec.inputs)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            stage.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[t.name for t in spec.inputs],
            output_names=[t.name for t in spec.outputs],
            optimize=False,
            verbose=False,
        )
        assert program is not None
        names = _weights_to_inputs(program.model.graph)
        program.optimize()
    model = program.model_proto
    _strip(model)
    opsets = {o.domain: o.version for o in model.opset_import}
    if opsets.get('') != OPSET:
        raise BundleError(f'the exporter wrote opset {opsets.get("")}, asked for {OPSET}.')
    traced = inputs_to_pending(model, {name: name.removeprefix(prefix) for name in names})
    check_boundary(model, spec)
    return traced


def _weights_to_inputs(graph: Any) -> list[str]:
    """Make graph inputs of the weights, so that the optimiser does not ask for their values."""
    names = [name for name, value in graph.initializers.items() if _is_meta(value.const_value)]
    for name in names:
        value = graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)
    return names


def _is_meta(value: Any) -> bool:
    raw = getattr(value, 'raw', None)
    return isinstance(raw, torch.Tensor) and raw.is_meta


def check_boundary(model: onnx.ModelProto, spec: StageSpec) -> None:
    """BundleError unless the graph's inputs and outputs are those of ``spec``, in order."""
    found = StageSpec(
        tuple(_spec(v) for v in model.graph.input), tuple(_spec(v) for v in model.graph.output)
    )
    if found != spec:
        raise BundleError(f'the exported graph has {found}, its stage says {spec}.')


def value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    """The ONNX declaration of a tensor."""
    return helper.make_tensor_value_info(spec.name, _ELEMENT[spec.dtype], spec.shape)


_ELEMENT = {
    'float32': TensorProto.FLOAT,
    'float16': TensorProto.FLOAT16,
    'bfloat16': TensorProto.BFLOAT16,
    'int64': TensorProto.INT64,
    'bool': TensorProto.BOOL,
}
_DTYPE = {int(element): name for name, element in _ELEMENT.items()}


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    return TensorSpec(
        value.name, tuple(d.dim_value for d in tensor.shape.dim), _DTYPE[tensor.elem_type]
    )


def _example(spec: TensorSpec) -> torch.Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return torch.ones(spec.shape, dtype=dtype, device='meta')


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes on where each node came from: most of a small file."""
    graph = model.graph
    del graph.value_info[:]
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ''


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
