"""Grouped attention in the form that TensorRT has one kernel for.

Our graphs lay the query heads that share a key-value head out as rows of one attention: right for
a CPU, but TensorRT's fused kernel wants two heads at least (measured with TensorRT-RTX 1.7: 0 of
17 attentions of the prefix were fused). So before the builder sees a graph, such an attention gets
its heads back: as one Attention operator, which reads the shared head in place, or, for a library
that does not have it (10.13), with keys and values expanded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

Form = Literal['operator', 'expanded']

OPERATOR_OPSET = 24
"""Not 23, whose Attention is the same but whose normalisation mixes types in half precision."""
_IR_VERSION = 11
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True, slots=True)
class Folded:
    """One attention with its heads folded into rows: names of tensors."""

    queries: str
    """[1, H, N, D]."""
    keys: str
    """[1, 1, S, D]."""
    values: str
    bias: str
    """Additive, broadcast to [1, 1, H N, S]; '' for none."""
    scale: float
    output: str
    """[1, H, N, D]."""
    shape: tuple[int, ...]
    """Of ``output``."""


def unfold_attention(model: onnx.ModelProto, form: Form) -> int:
    """Rewrite every folded attention of ``model`` in place; how many there were.

    Weights are neither read nor moved.
    """
    graph = _Graph(model)
    found = [f for node in model.graph.node if (f := graph.folded(node)) is not None]
    if not found:
        return 0
    replacement = {f.output: f for f in found}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        folded = replacement.get(node.output[0])
        if folded is None:
            nodes.append(node)
        elif form == 'operator':
            nodes.append(_operator(folded))
        else:
            nodes += _expanded(model, folded, graph.element_type)
    kept = _alive(nodes, {o.name for o in model.graph.output})
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    if form == 'operator':
        _raise_opset(model)
    return len(found)


def is_half(model: onnx.ModelProto) -> bool:
    """Whether attention is computed in 16 bits; no fused kernel does 32."""
    return _Graph(model).element_type in _HALF


class _Graph:
    """Who makes and who reads each tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        nodes = model.graph.node
        self._makers = {name: node for node in nodes for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._constants = {t.name: t for t in model.graph.initializer}
        self._constants |= {
            node.output[0]: node.attribute[0].t for node in nodes if node.op_type == 'Constant'
        }
        self.element_type = self._attention_type(nodes)

    def folded(self, reshape: NodeProto) -> Folded | None:
        """The attention whose output ``reshape`` gives the heads back to, if it is one."""
        weighted = self._maker(reshape, 0, 'Reshape', 'MatMul')
        softmax = self._maker(weighted, 0, 'MatMul', 'Softmax')
        if weighted is None or softmax is None or not self._only_reader(weighted):
            return None
        added = self._maker(softmax, 0, 'Softmax', 'Add')
        logits = self._maker(added or softmax, 0, '', 'MatMul')
        if logits is None:
            return None
        rows, row_scale = self._unscaled(logits.input[0])
        turned, key_scale = self._unscaled(logits.input[1])
        fold = self._makers.get(rows)
        keys = self._untransposed(turned)
        shape = self._numbers(reshape.input[1])
        if fold is None or fold.op_type != 'Reshape' or keys is None or shape is None:
            return None
        fold_shape = self._numbers(fold.input[1])
        if fold_shape is None or len(fold_shape) != 4 or len(shape) != 4:
            return None
        if fold_shape[1] != 1 or shape[1] < 2:
            return None
        return Folded(
            queries=fold.input[0],
            keys=keys,
            values=weighted.input[1],
            bias=added.input[1] if added is not None else '',
            scale=row_scale * key_scale,
            output=reshape.output[0],
            shape=tuple(int(n) for n in shape),
        )

    def _attention_type(self, nodes: Sequence[NodeProto]) -> int:
        """Element type of the scale of the first attention; 0 where it cannot be told."""
        for node in nodes:
            if node.op_type != 'Softmax':
                continue
            logits = self._makers.get(node.input[0])
            if logits is not None and logits.op_type == 'Add':
                logits = self._makers.get(logits.input[0])
            for name in logits.input if logits is not None else ():
                scaled = self._makers.get(name)
                if scaled is not None and scaled.op_type == 'Mul':
                    constant = self._constants.get(scaled.input[1])
                    if constant is not None:
                        return int(constant.data_type)
        return 0

    def _maker(
        self, node: NodeProto | None, index: int, kind: str, maker: str
    ) -> NodeProto | None:
        if node is None or (kind and node.op_type != kind):
            return None
        found = self._makers.get(node.input[index])
        return found if found is not None and found.op_type == maker else None

    def _only_reader(self, node: NodeProto) -> bool:
        return len(self._readers.get(node.output[0], [])) == 1

    def _unscaled(self, name: str) -> tuple[str, float]:
        """``name`` before a multiplication by one number, and that number."""
        node = self._makers.get(name)
        if node is not None and node.op_type == 'Mul':
            number = self._numbers(node.input[1])
            if number is not None and len(number) == 1:
                return node.input[0], float(number[0])
        return name, 1.0

    def _untransposed(self, name: str) -> str | None:
        """Of the exporter's Reshape, Transpose, Reshape, or one Transpose: what goes in."""
        node = self._makers.get(name)
        while node is not None and node.op_type in ('Reshape', 'Transpose'):
            source = node.input[0]
            if node.op_type == 'Transpose':
                before = self._makers.get(source)
                direct = before is None or before.op_type != 'Reshape'
                perm = list(node.attribute[0].ints)
                if len(perm) == 4:
                    return source if perm == [0, 1, 3, 2] else None
                return None if direct or before is None else before.input[0]
            node = self._makers.get(source)
        return None

    def _numbers(self, name: str) -> list[int] | list[float] | None:
        constant = self._constants.get(name)
        if constant is None or constant.data_location == TensorProto.EXTERNAL:
            return None
        values: list[int] | list[float] = numpy_helper.to_array(constant).reshape(-1).tolist()
        return values


def _operator(folded: Folded) -> NodeProto:
    inputs = [folded.queries, folded.keys, folded.values]
    inputs += [folded.bias] if folded.bias else []
    return helper.make_node(
        'Attention',
        inputs,
        [folded.output],
        name=f'{folded.output}_attention',
        scale=folded.scale,
    )


def _expanded(model: onnx.ModelProto, folded: Folded, element_type: int) -> list[NodeProto]:
    name = folded.output
    heads, width = folded.shape[1], folded.shape[3]
    model.graph.initializer.extend(
        (
            numpy_helper.from_array(np.array([1, heads, 1, width], np.int64), f'{name}_heads'),
            helper.make_tensor(f'{name}_scale', element_type, [1], [folded.scale]),
        )
    )
    logits = f'{name}_logits'
    nodes = [
        helper.make_node('Mul', [folded.queries, f'{name}_scale'], [f'{name}_q']),
        helper.make_node('Transpose', [folded.keys], [f'{name}_kt'], perm=[0, 1, 3, 2]),
        helper.make_node('Expand', [folded.values, f'{name}_heads'], [f'{name}_v']),
    ]
    model.graph.initializer.append(
        numpy_helper.from_array(np.array([1, heads, width, 1], np.int64), f'{name}_turned')
    )
    nodes += [
        helper.make_node('Expand', [f'{name}_kt', f'{name}_turned'], [f'{name}_k']),
        helper.make_node('MatMul', [f'{name}_q', f'{name}_k'], [logits]),
    ]
    if folded.bias:
        nodes.append(helper.make_node('Add', [logits, folded.bias], [f'{logits}_masked']))
        logits = f'{logits}_masked'
    return [
        *nodes,
        helper.make_node('Softmax', [logits], [f'{name}_p'], axis=-1),
        helper.make_node('MatMul', [f'{name}_p', f'{name}_v'], [name]),
    ]


def _alive(nodes: list[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """Nodes that some output depends on, in their order."""
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _raise_opset(model: onnx.ModelProto) -> None:
    model.ir_version = max(model.ir_version, _IR_VERSION)
    for opset in model.opset_import:
        if opset.domain in ('', 'ai.onnx'):
            opset.version = max(opset.version, OPERATOR_OPSET)
