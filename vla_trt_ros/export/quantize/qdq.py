"""Explicit QuantizeLinear and DequantizeLinear around the GEMMs of a graph.

Scales are in the compute dtype: with float32 scales a builder's GEMM writes float32 and casts
after. Weights are stored quantised and only dequantised in the graph.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from vla_trt_ros.backends.base import Array
from vla_trt_ros.datatypes import Float32Array
from vla_trt_ros.errors import BundleError, ConfigError
from vla_trt_ros.export.precision import PrecisionRow
from vla_trt_ros.export.quantize.draft import Content, Draft
from vla_trt_ros.export.quantize.gemms import Gemm, find_gemms, weight_key
from vla_trt_ros.export.quantize.numerics import (
    FORMATS,
    FP4_BLOCK,
    Format,
    Quantized,
    activation_scale,
    as_float32,
    check_finite,
    dtype_of,
    fp4_tensor_scale,
)
from vla_trt_ros.export.quantize.ranges import ActivationRange, Ranges
from vla_trt_ros.export.quantize.smooth import smoothing

FP4_OP, FP4_DOMAIN = 'TRT_FP4DynamicQuantize', 'trt'
_SCALE_TYPE_E4M3 = 17  # TensorProto.FLOAT8E4M3FN, as the operator's attribute wants it
_IR_VERSION = {20: 9, 21: 10, 23: 11}


class Quantizer:
    """Quantises the graphs of one stage at one precision. What it learns of a weight in one graph
    serves the next.
    """

    def __init__(
        self, row: PrecisionRow, compute: str, ranges: Ranges | None, *, smooth: bool = True
    ) -> None:
        """ConfigError if ``row`` needs ranges and there are none."""
        if row.calibrated and not ranges:
            raise ConfigError(
                f'{row.name} needs the ranges of activations, and there are none; calibrate with '
                'frames of the robot.'
            )
        self._row, self._compute, self._ranges = row, compute, ranges or {}
        self._format: Format = FORMATS[row.weights]
        self._smooth = smooth and row.name == 'int8'
        self._keys: dict[str, str] = {}
        self._divisors: dict[str, Float32Array | None] = {}
        self._last: tuple[str, Quantized] | None = None

    def apply(self, draft: Draft, stage: str) -> tuple[int, int, tuple[str, ...]]:
        """Quantise ``draft``: weights that are, that are smoothed too, and those left and why.

        BundleError for NaN or Inf in a weight, and for a GEMM that the ranges do not know.
        """
        gemms = find_gemms(draft, stage)
        kept = tuple(
            dict.fromkeys(f'{g.weight} {list(g.shape)}: {g.kept}' for g in gemms if g.kept)
        )
        groups: dict[str, list[Gemm]] = {}
        for gemm in gemms:
            if not gemm.kept:
                groups.setdefault(gemm.activation, []).append(gemm)
        before: dict[str, list[NodeProto]] = {}
        smoothed: set[str] = set()
        for activation, group in groups.items():
            nodes: list[NodeProto] = []
            divisors = self._divisors_of(draft, group) if self._smooth else None
            rounded = self._activation(draft, activation, group, divisors, nodes)
            smoothed.update(g.weight for g in group if divisors is not None)
            for gemm in group:
                weight = self._weight(draft, gemm, divisors, nodes)
                gemm.node.input[:] = [rounded, weight]
                before[gemm.node.output[0]], nodes = nodes, []
        _insert(draft, before)
        _raise_opset(draft, self._row)
        return len({g.weight for g in gemms if not g.kept}), len(smoothed), kept

    def _activation(
        self,
        draft: Draft,
        name: str,
        group: list[Gemm],
        divisors: Float32Array | None,
        nodes: list[NodeProto],
    ) -> str:
        """Append what rounds the activation; the name of the rounded one."""
        if not self._row.calibrated:
            return name
        amax = max(self._range(draft, gemm).amax for gemm in group)
        if divisors is not None:
            channels = self._range(draft, group[0]).channels
            amax = float((channels / divisors).max())
            inverse = np.asarray(1.0 / divisors, dtype_of(self._compute))
            draft.add(f'{name}_divisor', inverse)
            nodes.append(helper.make_node('Mul', [name, f'{name}_divisor'], [f'{name}_smooth']))
            name = f'{name}_smooth'
        if self._row.name == 'nvfp4':
            scale = draft.add(f'{name}_scale', fp4_tensor_scale(amax, self._compute))
            nodes += [
                helper.make_node(
                    FP4_OP,
                    [name, scale],
                    [f'{name}_q', f'{name}_block'],
                    domain=FP4_DOMAIN,
                    axis=-1,
                    block_size=FP4_BLOCK,
                    scale_type=_SCALE_TYPE_E4M3,
                ),
                helper.make_node('DequantizeLinear', [f'{name}_block', scale], [f'{name}_scales']),
                helper.make_node(
                    'DequantizeLinear',
                    [f'{name}_q', f'{name}_scales'],
                    [f'{name}_dq'],
                    axis=-1,
                    block_size=FP4_BLOCK,
                ),
            ]
            return f'{name}_dq'
        scale = draft.add(
            f'{name}_scale', activation_scale(amax, self._format.largest, self._compute)
        )
        zero = draft.add(f'{name}_zero', np.zeros((), dtype_of(self._row.activations)))
        nodes += [
            helper.make_node('QuantizeLinear', [name, scale, zero], [f'{name}_q']),
            helper.make_node('DequantizeLinear', [f'{name}_q', scale, zero], [f'{name}_dq']),
        ]
        return f'{name}_dq'

    def _weight(
        self,
        draft: Draft,
        gemm: Gemm,
        divisors: Float32Array | None,
        nodes: list[NodeProto],
    ) -> str:
        """Append what dequantises the weight; its name. One DequantizeLinear per GEMM: builders
        fuse it into its reader.
        """
        content = draft.contents[gemm.weight]
        tag = f'{content.tag}>{self._row.name}>{self._compute}'

        def made() -> Quantized:
            if self._last is None or self._last[0] != tag:
                matrix = as_float32(gemm.weight, gemm.matrix(draft))
                if divisors is not None:
                    matrix = matrix * divisors[:, None]
                self._last = (tag, self._format.quantize(matrix, self._compute))
            return self._last[1]

        def part(name: str) -> Content:
            def make() -> Array:
                value: Array = getattr(made(), name)
                return value

            return Content(f'{tag}>{name}', make, make)

        k, n = gemm.shape
        block = self._format.block_of(k)
        scales = f'{gemm.weight}_scales'
        if f'{gemm.weight}_q' not in draft.contents:
            draft.announce(f'{gemm.weight}_q', self._row.weights, (k, n), part('values'))
            shape = (k // block, n) if block else (n,)
            dtype = 'float8_e4m3fn' if self._format.two_level else self._compute
            draft.announce(scales, dtype, shape, part('scales'))
            if self._format.two_level:
                draft.announce(f'{gemm.weight}_scale', self._compute, (), part('tensor_scale'))
        out = f'{gemm.node.output[0]}_weight'
        if self._format.two_level:
            nodes.append(
                helper.make_node(
                    'DequantizeLinear', [scales, f'{gemm.weight}_scale'], [f'{out}_scales']
                )
            )
            scales = f'{out}_scales'
        blocks = {'axis': 0, 'block_size': block} if block else {'axis': 1}
        nodes.append(
            helper.make_node('DequantizeLinear', [f'{gemm.weight}_q', scales], [out], **blocks)
        )
        return out

    def _divisors_of(self, draft: Draft, group: list[Gemm]) -> Float32Array | None:
        key = '+'.join(self._key(draft, gemm) for gemm in group)
        if key not in self._divisors:
            channels = np.max([self._range(draft, gemm).channels for gemm in group], axis=0)
            weights = [as_float32(g.weight, g.matrix(draft)) for g in group]
            self._divisors[key] = smoothing(channels, np.concatenate(weights, axis=1))
        return self._divisors[key]

    def _key(self, draft: Draft, gemm: Gemm) -> str:
        tag = draft.contents[gemm.weight].tag
        if tag not in self._keys:
            matrix = gemm.matrix(draft)
            check_finite(gemm.weight, matrix)
            self._keys[tag] = weight_key(matrix)
        return self._keys[tag]

    def _range(self, draft: Draft, gemm: Gemm) -> ActivationRange:
        try:
            found = self._ranges[self._key(draft, gemm)]
        except KeyError:
            raise BundleError(
                f'GEMM {gemm.node.name or gemm.node.output[0]!r} with weight {gemm.weight!r} is '
                'not among the calibrated ones: the ranges belong to another network; calibrate '
                'this one.'
            ) from None
        if not (np.isfinite(found.amax) and found.amax > 0):
            raise ConfigError(
                f'the input of GEMM {gemm.node.name or gemm.node.output[0]!r} was {found.amax:g} '
                'at most in every calibration frame, which gives no scale; calibrate with frames '
                'that the robot saw at work.'
            )
        return found


def _insert(draft: Draft, before: dict[str, list[NodeProto]]) -> None:
    graph = draft.model.graph
    nodes = []
    for node in graph.node:
        for new in before.get(node.output[0] if node.output else '', []):
            new.name = new.name or f'{new.op_type}_{new.output[0]}'
            nodes.append(new)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _raise_opset(draft: Draft, row: PrecisionRow) -> None:
    model = draft.model
    for opset in model.opset_import:
        if opset.domain == '' and opset.version < row.opset:
            opset.version = row.opset
    if row.name == 'nvfp4':
        model.opset_import.append(helper.make_opsetid(FP4_DOMAIN, 1))
    model.ir_version = max(model.ir_version, _IR_VERSION[row.opset])
