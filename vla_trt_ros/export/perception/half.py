"""A float32 network in float16, but for its end.

What no convolution and no product follows any more turns the network's numbers into boxes: pixel
coordinates, places of a grid, scores that are compared. They stay in float32, which holds them
exactly, and so do input and output.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from vla_trt_ros.errors import BundleError
from vla_trt_ros.export.quantize.compute import element_types
from vla_trt_ros.export.quantize.draft import drop_unused

PRODUCTS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
_ALWAYS_FLOAT = {'Resize': (1, 2)}
"""Inputs that an operator wants in float32 whatever it works on: a Resize's scales."""
_LARGEST = float(np.finfo(np.float16).max)


def ends(model: onnx.ModelProto) -> set[str]:
    """First outputs of the nodes that no convolution or product follows."""
    follow: set[str] = set()
    for node in reversed(model.graph.node):
        if node.op_type in PRODUCTS or follow.intersection(node.output):
            follow.update(node.input)
    return {
        node.output[0]
        for node in model.graph.node
        if node.op_type not in PRODUCTS and not follow.intersection(node.output)
    }


def to_half(source: onnx.ModelProto) -> onnx.ModelProto:
    """``source`` computing in float16; tensors keep their names. BundleError for a weight that
    float16 does not hold, and for a graph with branches or loops.
    """
    model = deepcopy(source)
    graph = model.graph
    types = element_types(model)
    del graph.value_info[:]
    tail = ends(model)
    weights = {t.name: t for t in graph.initializer}
    outputs = {v.name for v in graph.output}
    halves: set[str] = set()
    copies: set[str] = set()
    nodes: list[NodeProto] = []

    def wanted(name: str, half: bool) -> str:
        """``name`` in the dtype that is wanted: itself, or a copy that is made here."""
        if (name in halves) == half:
            return name
        copy = f'{name}_{"half" if half else "float"}'
        if copy not in copies:
            copies.add(copy)
            if half and name in weights:
                graph.initializer.append(_half(weights[name], copy))
            else:
                to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
                nodes.append(helper.make_node('Cast', [name], [copy], f'cast_{copy}', to=to))
        return copy

    for node in graph.node:
        if any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
            raise BundleError(
                f'{node.op_type} {node.name!r} holds a graph of its own, which cannot be turned '
                'into float16; export the network without branches and loops.'
            )
        body = node.output[0] not in tail
        read = [n for n in node.input if types.get(n) == TensorProto.FLOAT]
        for i, name in enumerate(node.input):
            if name in read:
                half = body and i not in _ALWAYS_FLOAT.get(node.op_type, ())
                node.input[i] = wanted(name, half)
        nodes.append(node)
        for i, name in enumerate(node.output):
            if body and read and types.get(name) == TensorProto.FLOAT:
                halves.add(name)
                if name in outputs:
                    node.output[i] = f'{name}_half'
                    nodes.append(
                        helper.make_node(
                            'Cast', [f'{name}_half'], [name], f'cast_{name}', to=TensorProto.FLOAT
                        )
                    )
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(model)
    return model


def rounded(source: onnx.ModelProto) -> onnx.ModelProto:
    """``source``, its float32 weights rounded to float16 numbers. BundleError as `to_half`."""
    model = deepcopy(source)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.dims:
            half = numpy_helper.to_array(_half(tensor, tensor.name))
            tensor.CopyFrom(numpy_helper.from_array(half.astype(np.float32), tensor.name))
    return model


def stored_in_half(source: onnx.ModelProto) -> onnx.ModelProto:
    """A `rounded` graph in half the bytes: weights in float16, with a Cast behind each that
    runtimes fold when they load it. It computes what it computed.
    """
    model = deepcopy(source)
    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            name = f'{tensor.name}_stored'
            casts.append(
                helper.make_node('Cast', [name], [tensor.name], name, to=TensorProto.FLOAT)
            )
            half = _half(tensor, name)
            graph.initializer.remove(tensor)
            graph.initializer.append(half)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _half(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    if values.size and float(np.abs(values).max()) > _LARGEST:
        raise BundleError(
            f'weight {tensor.name!r} reaches {float(np.abs(values).max()):.3g}, float16 ends at '
            f'{_LARGEST:.0f}; choose fp32 for this network.'
        )
    return numpy_helper.from_array(values.astype(np.float16), name)
