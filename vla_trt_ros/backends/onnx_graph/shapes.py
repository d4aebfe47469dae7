"""ONNX's operators that compute nothing: shapes, parts, places and constants, as torch's.

Functions and table as in operators.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vla_trt_ros.backends.onnx_graph.node import Node, Operation


def _reshape(node: Node) -> Operation:
    shape = node.ints(1)
    if node.get('allowzero', 0) and 0 in shape:
        raise node.refused('allowzero is not known here')
    kept = [i for i, n in enumerate(shape) if n == 0]

    def run(x: Tensor, *_: Tensor) -> Tensor:
        wanted = list(shape)
        for i in kept:
            wanted[i] = x.shape[i]
        return x.reshape(wanted)

    return run


def _transpose(node: Node) -> Operation:
    order = node.get('perm', None)
    return lambda x: x.permute(order or list(reversed(range(x.dim()))))


def _flatten(node: Node) -> Operation:
    axis = node.get('axis', 1)
    return lambda x: x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(node: Node) -> Operation:
    axes = node.ints(1) if node.has(1) else node.get('axes', None)
    return lambda x, *_: x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(node: Node) -> Operation:
    axes = node.ints(1) if node.has(1) else node.attributes['axes']

    def run(x: Tensor, *_: Tensor) -> Tensor:
        rank = x.dim() + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return run


def _concat(node: Node) -> Operation:
    axis = node.attributes['axis']
    return lambda *values: torch.cat(values, axis)


def _split(node: Node) -> Operation:
    axis, sizes = node.get('axis', 0), node.ints(1) if node.has(1) else None
    count = node.get('num_outputs', node.outputs)

    def run(x: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        part: int | Sequence[int] = sizes or -(-x.shape[axis] // count)
        found: tuple[Tensor, ...] = torch.split(x, part, axis)
        return found

    return run


def _slice(node: Node) -> Operation:
    begins, ends = node.ints(1), node.ints(2)
    axes = node.ints(3) if node.has(3) else list(range(len(begins)))
    steps = node.ints(4) if node.has(4) else [1] * len(begins)
    if min(steps) < 1:
        raise node.refused(f'steps {steps} backwards are not known here')

    def run(x: Tensor, *_: Tensor) -> Tensor:
        place = [slice(None)] * x.dim()
        for axis, begin, end, step in zip(axes, begins, ends, steps, strict=True):
            place[axis] = slice(begin, end, step)
        return x[tuple(place)]

    return run


def _gather(node: Node) -> Operation:
    axis = node.get('axis', 0)

    def run(x: Tensor, indices: Tensor) -> Tensor:
        before = (slice(None),) * (axis % x.dim())
        found: Tensor = x[(*before, indices.long())]
        return found

    if node.is_constant(1) and node.constant(1).dim() == 0:
        (place,) = node.ints(1)  # no tensor of indices to read
        return lambda x, _: x.select(axis, place)
    return run


def _gather_elements(node: Node) -> Operation:
    axis = node.get('axis', 0)
    # Negative ones, which ONNX allows, come from no TopK.
    return lambda x, indices: torch.gather(x, axis, indices)


def _expand(node: Node) -> Operation:
    shape = node.ints(1)
    return lambda x, *_: x.expand(torch.broadcast_shapes(x.shape, shape))


def _tile(node: Node) -> Operation:
    repeats = node.ints(1)
    return lambda x, *_: x.repeat(repeats)


def _shape(node: Node) -> Operation:
    begin, end = node.get('start', 0), node.get('end', None)
    return lambda x: torch.tensor(x.shape[begin:end], dtype=torch.int64)


def _constant_of_shape(node: Node) -> Operation:
    shape = node.ints(0)
    value = node.get('value', torch.zeros(1))
    return lambda _: value.reshape(()).expand(shape).contiguous()


def _range(node: Node) -> Operation:
    begin, end, step = (node.constant(i).item() for i in range(3))
    dtype = node.constant(0).dtype
    return lambda *_: torch.arange(begin, end, step, dtype=dtype)


def _constant(node: Node) -> Operation:
    ((kind, value),) = node.attributes.items()
    dtypes = {'value_int': torch.int64, 'value_ints': torch.int64}
    if kind not in (*dtypes, 'value', 'value_float', 'value_floats'):
        raise node.refused(f'a constant as {kind} is not known here')
    made = value if kind == 'value' else torch.tensor(value, dtype=dtypes.get(kind))
    return lambda: made


SHAPES: dict[str, Callable[[Node], Operation]] = {
    'Concat': _concat,
    'Constant': _constant,
    'ConstantOfShape': _constant_of_shape,
    'Expand': _expand,
    'Flatten': _flatten,
    'Gather': _gather,
    'GatherElements': _gather_elements,
    'Range': _range,
    'Reshape': _reshape,
    'Shape': _shape,
    'Slice': _slice,
    'Split': _split,
    'Squeeze': _squeeze,
    'Tile': _tile,
    'Transpose': _transpose,
    'Unsqueeze': _unsqueeze,
}
