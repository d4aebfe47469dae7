"""Convolutions in 8 bits: explicit QuantizeLinear and DequantizeLinear for TensorRT, and the form
that ONNX Runtime is quick with on a CPU.

As in export/quantize/, weights have a scale per output channel and activations one per tensor,
from the largest magnitude that calibration saw. The last convolutions, which tell scores and
edges, keep their precision: they are a hundredth of the work.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, numpy_helper

from vla_trt_ros.backends.base import Array
from vla_trt_ros.datatypes import Float32Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.perception.half import ends, to_half
from vla_trt_ros.export.precision import precision_row
from vla_trt_ros.export.quantize.draft import ELEMENT, drop_unused
from vla_trt_ros.export.quantize.numerics import (
    FORMATS,
    activation_scale,
    as_float32,
    check_finite,
    dtype_of,
)

Ranges = Mapping[str, float]
"""Tensor that enters a convolution -> its largest magnitude."""
FEWEST = 8
"""Pictures to calibrate on."""


def quantised_convs(model: onnx.ModelProto) -> list[NodeProto]:
    """Convolutions with constant weights, but those at the very end."""
    weights = {t.name for t in model.graph.initializer}
    tail = ends(model)
    read_at_end = {n for node in model.graph.node if node.output[0] in tail for n in node.input}
    read_at_end |= {v.name for v in model.graph.output}
    return [
        node
        for node in model.graph.node
        if node.op_type == 'Conv'
        and node.input[1] in weights
        and not read_at_end.intersection(node.output)
    ]


def collect_ranges(model: onnx.ModelProto, images: Sequence[Float32Array]) -> dict[str, float]:
    """Ranges of the float32 ``model`` on ``images``, float32 [1, 3, side, side] each.

    ConfigError for fewer than FEWEST, and where nothing but zeros, or no number, came by.
    """
    if len(images) < FEWEST:
        raise ConfigError(f'{len(images)} pictures are too few to calibrate on; give {FEWEST}.')
    names = list(dict.fromkeys(node.input[0] for node in quantised_convs(model)))
    probe = deepcopy(model)
    held = {v.name for v in probe.graph.output}
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in held | {model.graph.input[0].name}
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        probe.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    entry = model.graph.input[0].name
    largest = dict.fromkeys(names, 0.0)
    tapped = [name for name in names if name != entry]
    for image in images:
        # An empty list would mean all outputs.
        values = session.run(tapped, {entry: image}) if tapped else []
        found = dict(zip(tapped, values, strict=True))
        found[entry] = image
        for name in names:
            largest[name] = max(largest[name], float(np.abs(found[name]).max()))
    for name, value in largest.items():
        if not (np.isfinite(value) and value > 0):
            raise ConfigError(
                f'{name!r}, which a convolution reads, was {value:g} at most in every picture, '
                'which gives no scale; calibrate with pictures of the robot at work.'
            )
    return largest


def quantise(source: onnx.ModelProto, precision: str, ranges: Ranges) -> onnx.ModelProto:
    """The float32 ``source`` with its convolutions in 'int8' or 'fp8', float16 between them."""
    row = precision_row(precision)
    form = FORMATS[row.weights]
    chosen = {node.output[0] for node in quantised_convs(source)}
    model = to_half(source)
    graph = model.graph
    contents = {t.name: t for t in graph.initializer}
    first = {f'{v.name}_half': v.name for v in graph.input}
    made: set[str] = set()
    nodes: list[NodeProto] = []

    def rounded(name: str) -> str:
        if name not in made:
            made.add(name)
            amax = ranges[first.get(name, name)]
            # Below float16's normal numbers a scale would be coarse, or 0.
            amax = max(amax, form.largest * float(np.finfo(np.float16).tiny))
            scale = _add(graph, f'{name}_scale', activation_scale(amax, form.largest, 'float16'))
            zero = _add(graph, f'{name}_zero', np.zeros((), dtype_of(row.activations)))
            nodes.append(helper.make_node('QuantizeLinear', [name, scale, zero], [f'{name}_q']))
            nodes.append(
                helper.make_node('DequantizeLinear', [f'{name}_q', scale, zero], [f'{name}_dq'])
            )
        return f'{name}_dq'

    for node in graph.node:
        if node.op_type == 'Conv' and node.output[0] in chosen:
            weight = node.input[1]
            if f'{weight}_dq' not in made:
                made.add(f'{weight}_dq')
                values = as_float32(weight, numpy_helper.to_array(contents[weight]))
                columns = form.quantize(values.reshape(len(values), -1).T, 'float16')
                whole = np.ascontiguousarray(columns.values.T).reshape(values.shape)
                _add(graph, f'{weight}_q', whole)
                _add(graph, f'{weight}_scales', columns.scales)
                nodes.append(
                    helper.make_node(
                        'DequantizeLinear',
                        [f'{weight}_q', f'{weight}_scales'],
                        [f'{weight}_dq'],
                        axis=0,
                    )
                )
            node.input[0], node.input[1] = rounded(node.input[0]), f'{weight}_dq'
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for node in graph.node:
        node.name = node.name or f'{node.op_type}_{node.output[0]}'
    drop_unused(model)
    return model


def quantise_for_cpu(source: onnx.ModelProto, images: Sequence[Float32Array]) -> onnx.ModelProto:
    """``source`` as ONNX Runtime multiplies it in 8 bits: activations in uint8 with a zero point,
    from convolution to convolution. Its own tool makes it, for its kernels ask for its patterns.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    entry = source.graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(images)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self._left, None)
            return None if image is None else {entry: image}

    named = deepcopy(source)
    for i, node in enumerate(named.graph.node):
        node.name = f'{node.op_type}_{i}'
    wanted = {node.output[0] for node in quantised_convs(named)}
    tail = ends(named)
    excluded = [
        node.name
        for node in named.graph.node
        if node.output[0] in tail or (node.op_type == 'Conv' and node.output[0] not in wanted)
    ]
    with tempfile.TemporaryDirectory(prefix='quantise.') as folder:
        before, after = Path(folder) / 'before.onnx', Path(folder) / 'after.onnx'
        onnx.save(named, before)
        quantize_static(
            before,
            after,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=['Conv', 'Relu', 'Add', 'Concat', 'MaxPool', 'Resize'],
            nodes_to_exclude=excluded,
            per_channel=True,
            # 7 bits: without VNNI, x86 adds two products in 16 bits, which would saturate.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        made = onnx.load(after)
    for tensor in made.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            check_finite(tensor.name, numpy_helper.to_array(tensor))
    return made


def _add(graph: onnx.GraphProto, name: str, array: Array) -> str:
    dtype = str(array.dtype)
    if dtype.startswith('float8'):
        raw = np.ascontiguousarray(array).view(np.uint8).tobytes()
        graph.initializer.append(
            helper.make_tensor(name, ELEMENT[dtype], array.shape, raw, raw=True)
        )
    else:
        graph.initializer.append(numpy_helper.from_array(array, name))
    return name
