"""ONNX's operators as torch's: a row for each that detectors and classifiers are made of.

A function of the table looks at a `Node` once, when the file is loaded, and returns what is called
with the tensors of its inputs. Shapes are fixed: what ONNX reads from a tensor that is the same
for every picture (a Reshape's shape, a Slice's ends) is a number here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vla_trt_ros.backends.onnx_graph.node import Node, Operation
from vla_trt_ros.backends.onnx_graph.shapes import SHAPES

DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
"""TensorProto's numbers."""


def _plain(function: Callable[..., Tensor]) -> Callable[[Node], Operation]:
    """An operator that needs nothing but its inputs."""
    return lambda node: function


# Products ----------------------------------------------------------------------------------------


def _pads(node: Node, dims: int) -> tuple[list[int], list[int]]:
    """Symmetric padding for torch's own argument, or else what `F.pad` takes before."""
    if node.get('auto_pad', 'NOTSET') not in ('NOTSET', 'VALID'):
        raise node.refused('auto_pad is not known here; export with explicit pads')
    pads = node.get('pads', [0] * 2 * dims)
    begin, end = list(pads[:dims]), list(pads[dims:])
    if begin == end:
        return begin, []
    around = [n for pair in zip(reversed(begin), reversed(end), strict=True) for n in pair]
    return [0] * dims, around


def _conv(node: Node) -> Operation:
    dims = node.constant(1).dim() - 2
    padding, around = _pads(node, dims)
    stride, dilation = node.get('strides', [1] * dims), node.get('dilations', [1] * dims)
    groups = node.get('group', 1)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        x = F.pad(x, around) if around else x
        return convolve(x, weight, bias, stride, padding, dilation, groups)

    return run


def _conv_transpose(node: Node) -> Operation:
    dims = node.constant(1).dim() - 2
    padding, around = _pads(node, dims)
    if around or dims != 2:
        raise node.refused('only two dimensions and equal pads on both sides are known here')
    stride, dilation = node.get('strides', [1] * dims), node.get('dilations', [1] * dims)
    extra, groups = node.get('output_padding', [0] * dims), node.get('group', 1)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv_transpose2d(x, weight, bias, stride, padding, extra, groups, dilation)

    return run


def _gemm(node: Node) -> Operation:
    alpha, beta = node.get('alpha', 1.0), node.get('beta', 1.0)
    across, along = node.get('transA', 0), node.get('transB', 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = a.t() if across else a, b.t() if along else b
        if c is not None:
            return torch.addmm(c, a, b, beta=beta, alpha=alpha)
        return a @ b if alpha == 1.0 else alpha * (a @ b)

    return run


# Pooling and sizes -------------------------------------------------------------------------------


def _max_pool(node: Node) -> Operation:
    kernel = node.attributes['kernel_shape']
    if len(kernel) != 2 or node.outputs != 1:
        raise node.refused('only two dimensions and one output are known here')
    padding, around = _pads(node, 2)
    stride, dilation = node.get('strides', [1, 1]), node.get('dilations', [1, 1])
    up = bool(node.get('ceil_mode', 0))

    def run(x: Tensor) -> Tensor:
        x = F.pad(x, around, value=-math.inf) if around else x
        return F.max_pool2d(x, kernel, stride, padding, dilation, up)

    return run


def _average_pool(node: Node) -> Operation:
    kernel = node.attributes['kernel_shape']
    padding, around = _pads(node, 2)
    if len(kernel) != 2 or around:
        raise node.refused('only two dimensions and equal pads on both sides are known here')
    stride, up = node.get('strides', [1, 1]), bool(node.get('ceil_mode', 0))
    inside = bool(node.get('count_include_pad', 0))
    return lambda x: F.avg_pool2d(x, kernel, stride, padding, up, inside)


def _resize(node: Node) -> Operation:
    mode, where = node.get('mode', 'nearest'), node.get('coordinate_transformation_mode', '')
    nearest = node.get('nearest_mode', 'round_prefer_floor')
    way = ((where or 'half_pixel').replace('pytorch_half_pixel', 'half_pixel'), nearest)

    def size_of(x: Tensor) -> list[int]:
        if node.has(3):
            return node.ints(3)[2:]
        scales = node.constant(2).tolist()[2:]
        return [math.floor(n * scale) for n, scale in zip(x.shape[2:], scales, strict=True)]

    def repeat(x: Tensor) -> Tensor:
        size = size_of(x)
        whole = not any(n % m for n, m in zip(size, x.shape[2:], strict=True))
        if way != ('asymmetric', 'floor') and not (whole and way[1] == 'round_prefer_floor'):
            raise node.refused(f'nearest with {way[0]} and {way[1]} is not known here')
        return F.interpolate(x, size, mode='nearest')

    def bilinear(x: Tensor) -> Tensor:
        return F.interpolate(x, size_of(x), mode='bilinear', align_corners=False)

    if mode == 'nearest':
        return lambda x, *_: repeat(x)
    if (mode, way[0]) != ('linear', 'half_pixel'):
        raise node.refused(f'{mode} with {way[0]} is not known here')
    return lambda x, *_: bilinear(x)


# Numbers -----------------------------------------------------------------------------------------


def _divide(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode='trunc')


def _mod(node: Node) -> Operation:
    rest: Operation = torch.fmod if node.get('fmod', 0) else torch.remainder
    return rest


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Node], Operation]:
    """An operator of any number of inputs."""

    def run(*values: Tensor) -> Tensor:
        found = values[0]
        for value in values[1:]:
            found = function(found, value)
        return found

    return lambda node: run


def _clip(node: Node) -> Operation:
    low = node.constant(1).item() if node.has(1) else None
    high = node.constant(2).item() if node.has(2) else None
    return lambda x, *_: torch.clamp(x, low, high)


def _cast(node: Node) -> Operation:
    to = DTYPES.get(node.attributes['to'])
    if to is None:
        raise node.refused(f'data type {node.attributes["to"]} is not known here; choose fp16')
    return lambda x: x.to(to)


def _batch_norm(node: Node) -> Operation:
    scale, bias, mean, variance = (node.constant(i).double() for i in range(1, 5))
    factor = scale / torch.sqrt(variance + node.get('epsilon', 1e-5))
    rest = bias - mean * factor
    kept: dict[tuple[torch.dtype, torch.device, int], tuple[Tensor, Tensor]] = {}

    def run(x: Tensor, *_: Tensor) -> Tensor:
        key = (x.dtype, x.device, x.dim())
        if key not in kept:
            shape = (1, -1, *(1,) * (x.dim() - 2))
            kept[key] = (
                factor.to(x.device, x.dtype).reshape(shape),
                rest.to(x.device, x.dtype).reshape(shape),
            )
        return torch.addcmul(kept[key][1], x, kept[key][0])

    return run


def _layer_norm(node: Node) -> Operation:
    axis, epsilon = node.get('axis', -1), node.get('epsilon', 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.layer_norm(x, x.shape[axis:], scale, bias, epsilon)

    return run


def _softmax(node: Node) -> Operation:
    axis = node.get('axis', -1)
    return lambda x: torch.softmax(x, axis)


def _gelu(node: Node) -> Operation:
    how = node.get('approximate', 'none')
    return lambda x: F.gelu(x, approximate=how)


def _hard_sigmoid(node: Node) -> Operation:
    alpha, beta = node.get('alpha', 0.2), node.get('beta', 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


def _leaky_relu(node: Node) -> Operation:
    slope = node.get('alpha', 0.01)
    return lambda x: F.leaky_relu(x, slope)


def _reduce(function: Callable[..., Tensor]) -> Callable[[Node], Operation]:
    def prepare(node: Node) -> Operation:
        axes = node.ints(1) if node.has(1) else node.get('axes', None)
        keep = bool(node.get('keepdims', 1))
        if not axes and node.get('noop_with_empty_axes', 0):
            return lambda x, *_: x
        return lambda x, *_: function(x, axes or list(range(x.dim())), keep)

    return prepare


def _arg_max(node: Node) -> Operation:
    axis, keep = node.get('axis', 0), bool(node.get('keepdims', 1))
    if node.get('select_last_index', 0):
        raise node.refused('select_last_index is not known here')
    return lambda x: torch.argmax(x, axis, keep)


def _cumulative_sum(node: Node) -> Operation:
    (axis,) = node.ints(1)
    if node.get('exclusive', 0) or node.get('reverse', 0):
        raise node.refused('exclusive and reverse are not known here')
    return lambda x, *_: torch.cumsum(x, axis, dtype=x.dtype)


def _top_k(node: Node) -> Operation:
    (count,) = node.ints(1)
    axis, largest = node.get('axis', -1), bool(node.get('largest', 1))
    return lambda x, *_: tuple(torch.topk(x, count, axis, largest, sorted=True))


OPERATORS: dict[str, Callable[[Node], Operation]] = {
    **SHAPES,
    'Abs': _plain(torch.abs),
    'Add': _plain(operator.add),
    'And': _plain(torch.logical_and),
    'ArgMax': _arg_max,
    'AveragePool': _average_pool,
    'BatchNormalization': _batch_norm,
    'Cast': _cast,
    'Ceil': _plain(torch.ceil),
    'Clip': _clip,
    'Conv': _conv,
    'ConvTranspose': _conv_transpose,
    'Cos': _plain(torch.cos),
    'CumSum': _cumulative_sum,
    'Div': _plain(_divide),
    'Equal': _plain(torch.eq),
    'Erf': _plain(torch.erf),
    'Exp': _plain(torch.exp),
    'Floor': _plain(torch.floor),
    'Gelu': _gelu,
    'Gemm': _gemm,
    'GlobalAveragePool': _plain(lambda x: x.mean(list(range(2, x.dim())), keepdim=True)),
    'Greater': _plain(torch.gt),
    'GreaterOrEqual': _plain(torch.ge),
    'HardSigmoid': _hard_sigmoid,
    'HardSwish': _plain(F.hardswish),
    'Identity': _plain(lambda x: x),
    'LayerNormalization': _layer_norm,
    'LeakyRelu': _leaky_relu,
    'Less': _plain(torch.lt),
    'LessOrEqual': _plain(torch.le),
    'Log': _plain(torch.log),
    'MatMul': _plain(torch.matmul),
    'Max': _fold(torch.maximum),
    'MaxPool': _max_pool,
    'Min': _fold(torch.minimum),
    'Mod': _mod,
    'Mul': _plain(operator.mul),
    'Neg': _plain(torch.neg),
    'Not': _plain(torch.logical_not),
    'Or': _plain(torch.logical_or),
    'Pow': _plain(lambda x, y: torch.pow(x, y).to(x.dtype)),
    'Reciprocal': _plain(torch.reciprocal),
    'ReduceMax': _reduce(torch.amax),
    'ReduceMean': _reduce(torch.mean),
    'ReduceMin': _reduce(torch.amin),
    'ReduceSum': _reduce(torch.sum),
    'Relu': _plain(torch.relu),
    'Resize': _resize,
    'Sigmoid': _plain(torch.sigmoid),
    'Sin': _plain(torch.sin),
    'Softmax': _softmax,
    'Sqrt': _plain(torch.sqrt),
    'Sub': _plain(operator.sub),
    'Sum': _fold(operator.add),
    'Tanh': _plain(torch.tanh),
    'TopK': _top_k,
    'Where': _plain(torch.where),
}


def unknown(kinds: Sequence[str]) -> str:
    """Those of ``kinds`` that the table lacks, for people."""
    return ', '.join(sorted(set(kinds) - set(OPERATORS)))
