"""The dtype that a graph computes in.

GEMMs, attention and GELU run in the compute dtype. Patches, norms, rotary embedding and the
Euler loop stay float32: half precision cannot tell high positions apart, and the square of a
residual leaves float16's range. An attention is left as MatMul, Softmax, MatMul in one dtype, for
builders fuse that pattern into a kernel whose softmax is float32 inside.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, shape_inference

from vla_trt_ros.backends.base import Array
from vla_trt_ros.errors import BundleError
from vla_trt_ros.export.quantize.draft import ELEMENT, FLOATS, Content, Draft
from vla_trt_ros.export.quantize.gemms import find_gemms
from vla_trt_ros.export.quantize.numerics import dtype_of

_NARROW = frozenset(
    ('MatMul', 'Gemm', 'Attention', 'Softmax', 'Gelu', 'Sigmoid', 'Tanh', 'LayerNormalization')
)
_WIDE = frozenset(('Conv', 'Pow', 'ReduceMean', 'Sqrt', 'Reciprocal', 'Cos', 'Sin'))
_HANDED_ON = frozenset(('image_tokens', 'keys', 'values'))
_FLOAT = TensorProto.FLOAT
_MASK = 1e38
"""No weight is as large; a number that is stands for minus infinity."""
_DTYPE = {element: name for name, element in ELEMENT.items()}


def compute_in(draft: Draft, stage: str, compute: str, boundary: str) -> None:
    """Turn ``draft`` into a graph that computes in ``compute`` and hands on ``boundary``.

    Pixels, noise and actions are float32 in every precision. A bfloat16 source stays as it was
    exported where bfloat16 is asked for; for another dtype it is taken to float32 first.
    BundleError for a source in another half precision.
    """
    halves = half_types(draft.model)
    if halves - {'bfloat16'}:
        raise BundleError(
            f'a source graph in {", ".join(sorted(halves))} cannot be converted; give one in '
            'float32 or bfloat16.'
        )
    if halves and compute == 'bfloat16':
        return
    if halves:
        widen(draft)
    if compute != 'float32':
        _Narrowing(draft, stage, ELEMENT[compute], ELEMENT[boundary]).run()


def half_types(model: onnx.ModelProto) -> set[str]:
    """Dtypes of 16 bits or less among the float tensors that the graph stores or hands on."""
    graph = model.graph
    found = {t.data_type for t in graph.initializer}
    found |= {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    return {_DTYPE[e] for e in found if e in _DTYPE and e != _FLOAT}


def widen(draft: Draft) -> None:
    """Every bfloat16 tensor to float32; casts between the two vanish."""
    graph, half = draft.model.graph, TensorProto.BFLOAT16
    types = element_types(draft.model)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = _FLOAT
    for tensor in list(graph.initializer):
        if tensor.data_type == half:
            _convert(draft, tensor, tensor.name, _FLOAT)
            graph.initializer.remove(tensor)
    outputs = {value.name for value in graph.output}
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [alias.get(name, name) for name in node.input]
        for attribute in node.attribute:
            if node.op_type == 'Cast' and attribute.name == 'to' and attribute.i == half:
                attribute.i = _FLOAT
        if node.op_type == 'Cast' and node.output[0] not in outputs:
            to = next(a.i for a in node.attribute if a.name == 'to')
            if to == _FLOAT and types.get(node.input[0]) in (_FLOAT, half):
                alias[node.output[0]] = node.input[0]
                continue
        kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor of the graph."""
    graph = shape_inference.infer_shapes(model).graph
    types = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    return types


class _Narrowing:
    """One walk over the nodes of a float32 graph, in their order.

    A node computes wide (float32) or narrow. Those that are neither by kind follow their inputs;
    casts are put where the two meet.
    """

    def __init__(self, draft: Draft, stage: str, compute: int, boundary: int) -> None:
        self.draft, self.graph = draft, draft.model.graph
        self.compute, self.boundary = compute, boundary
        self.latent = {g.node.output[0] for g in find_gemms(draft, stage) if g.latent}
        self.types = element_types(draft.model)
        self.constants = {t.name: t for t in self.graph.initializer}
        self.made_by: dict[str, str] = {}
        self.nodes: list[NodeProto] = []
        self.copies: dict[tuple[str, int], str] = {}
        self.now: dict[str, int] = {}
        """Element type in the new graph of each tensor that is not a constant."""

    def run(self) -> None:
        """Rewrite the graph."""
        for value in (*self.graph.input, *self.graph.output):
            if value.name in _HANDED_ON:
                value.type.tensor_type.elem_type = self.boundary
        wanted = {v.name: v.type.tensor_type.elem_type for v in self.graph.output}
        self.now = {v.name: v.type.tensor_type.elem_type for v in self.graph.input}
        for node in list(self.graph.node):
            self._place(node, wanted)
        del self.graph.value_info[:]
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def _place(self, node: NodeProto, wanted: dict[str, int]) -> None:
        floats = [n for n in node.input if self.types.get(n) in FLOATS]
        self.made_by.update(dict.fromkeys(node.output, node.op_type))
        if not floats:  # masks, integers, and positions on their way to float32
            self.nodes.append(node)
            self.now.update({n: self.types.get(n, 0) for n in node.output})
            return
        target = _FLOAT if self._is_wide(node, floats) else self.compute
        node.input[:] = [
            self._as(n, target) if self.types.get(n) in FLOATS else n for n in node.input
        ]
        self.nodes.append(node)
        for i, name in enumerate(node.output):
            made = target if self.types.get(name) in FLOATS else self.types.get(name, 0)
            after = wanted.get(name, self.compute if self._ends_rotation(node) else made)
            if after != made:
                node.output[i] = f'{name}_{_DTYPE[made]}'
                self.nodes.append(_cast(node.output[i], name, after))
            self.now[name] = after

    def _is_wide(self, node: NodeProto, floats: list[str]) -> bool:
        if node.op_type in _WIDE or self.latent.intersection(node.output):
            return True
        if node.op_type in _NARROW:
            return False
        wide = [self.now[n] == _FLOAT for n in floats if n not in self.constants]
        # x over its rms, a rotation and a gate multiply narrow by wide: the product is wide.
        return any(wide) if node.op_type == 'Mul' else bool(wide) and all(wide)

    def _ends_rotation(self, node: NodeProto) -> bool:
        return node.op_type == 'Concat' and {self.made_by.get(n) for n in node.input} == {
            'Sub',
            'Add',
        }

    def _as(self, name: str, target: int) -> str:
        """``name`` in element type ``target``: itself, a cast or a converted constant."""
        if (name, target) in self.copies:
            return self.copies[name, target]
        tensor = self.constants.get(name)
        if (self.types[name] if tensor else self.now[name]) == target:
            return name
        copy = f'{name}_{_DTYPE[target]}'
        if tensor:
            _convert(self.draft, tensor, copy, target)
        else:
            self.nodes.append(_cast(name, copy, target))
        self.copies[name, target] = copy
        return copy


def _cast(source: str, name: str, to: int) -> NodeProto:
    return helper.make_node('Cast', [source], [name], name=f'cast_{name}', to=to)


def _convert(draft: Draft, tensor: TensorProto, name: str, to: int) -> None:
    """An initialiser ``name`` with the values of ``tensor`` in element type ``to``."""
    dtype = _DTYPE[to]
    content = draft.contents.get(tensor.name)
    if content is None:  # a scalar, inside the graph
        draft.add(name, _rounded(onnx.numpy_helper.to_array(tensor), dtype))
        return
    make = content.make
    converted = Content(
        f'{content.tag}>{dtype}', lambda: _rounded(make(), dtype), content.original
    )
    draft.announce(name, dtype, tuple(tensor.dims), converted)


def _rounded(array: Array, dtype: str) -> Array:
    """``array`` in ``dtype``. The lowest float32, which masks attention, becomes half the lowest
    of ``dtype``: a logit is added to it, and the sum must stay finite.
    """
    to = dtype_of(dtype)
    wide = np.asarray(array, np.float32)
    masks = np.isfinite(wide) & (np.abs(wide) > _MASK)
    if masks.any():
        wide = np.where(masks, np.sign(wide) * (float(ml_dtypes.finfo(to).max) / 2), wide)
    with np.errstate(over='ignore'):  # what overflows is Inf, which is refused by name
        return np.asarray(wide.astype(to))
