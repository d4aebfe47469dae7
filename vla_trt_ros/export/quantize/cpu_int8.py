"""The int8 form that ONNX Runtime runs on a CPU.

Weights are int8, a scale per column. Activations become uint8 at run time, their scale and zero
point taken from the tensor itself: as fast as scales fixed beforehand, finer, and without frames
to calibrate on. ONNX Runtime's own operator multiplies the two, for its fusion of Quantize and
DequantizeLinear leaves out GEMMs that share an input or have a bias.
"""

from __future__ import annotations

from onnx import NodeProto, helper

from vla_trt_ros.backends.base import Array
from vla_trt_ros.export.quantize.draft import Content, Draft
from vla_trt_ros.export.quantize.gemms import Gemm, find_gemms
from vla_trt_ros.export.quantize.numerics import Quantized, as_float32, to_int8_pairs

_DOMAIN = 'com.microsoft'


class CpuInt8:
    """Quantises the graphs of one stage for a CPU."""

    def __init__(self) -> None:
        self._last: tuple[str, Quantized] | None = None

    def apply(self, draft: Draft, stage: str) -> tuple[int, int, tuple[str, ...]]:
        """As `Quantizer.apply`; nothing is smoothed."""
        gemms = find_gemms(draft, stage)
        kept = dict.fromkeys(f'{g.weight} {list(g.shape)}: {g.kept}' for g in gemms if g.kept)
        chosen = {g.node.output[0]: g for g in gemms if not g.kept}
        biases = _biases(draft, set(chosen))
        merged = {out for _, out in biases.values()}
        rounded: set[str] = set()
        nodes = []
        for node in draft.model.graph.node:
            gemm = chosen.get(node.output[0])
            if gemm is None:
                if node.output[0] not in merged:
                    nodes.append(node)
                continue
            name = gemm.activation
            level, scale, zero = (f'{name}_{part}' for part in ('u8', 'scale', 'zero'))
            if name not in rounded:
                rounded.add(name)
                nodes.append(
                    helper.make_node('DynamicQuantizeLinear', [name], [level, scale, zero])
                )
            weight, scales = self._weight(draft, gemm)
            bias, out = biases.get(node.output[0], ('', node.output[0]))
            inputs = [level, weight, scale, scales, zero, *(['', bias] if bias else [])]
            nodes.append(
                helper.make_node('MatMulIntegerToFloat', inputs, [out], node.name, domain=_DOMAIN)
            )
        graph = draft.model.graph
        del graph.node[:]
        graph.node.extend(nodes)
        draft.model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
        return len({g.weight for g in chosen.values()}), 0, tuple(kept)

    def _weight(self, draft: Draft, gemm: Gemm) -> tuple[str, str]:
        """Names of the weight in int8 and of its scales."""
        names = f'{gemm.weight}_q', f'{gemm.weight}_scales'
        if names[0] in draft.contents:
            return names
        tag = f'{draft.contents[gemm.weight].tag}>int8 pairs'

        def made() -> Quantized:
            if self._last is None or self._last[0] != tag:
                matrix = as_float32(gemm.weight, gemm.matrix(draft))
                self._last = (tag, to_int8_pairs(matrix))
            return self._last[1]

        def part(name: str) -> Content:
            def make() -> Array:
                value: Array = getattr(made(), name)
                return value

            return Content(f'{tag}>{name}', make, make)

        draft.announce(names[0], 'int8', gemm.shape, part('values'))
        draft.announce(names[1], 'float32', (gemm.shape[1],), part('scales'))
        return names


def _biases(draft: Draft, outputs: set[str]) -> dict[str, tuple[str, str]]:
    """GEMM output to (bias, output of the Add), where a constant is added and nothing else reads
    the product.
    """
    readers: dict[str, list[NodeProto]] = {}
    for node in draft.model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    vectors = {t.name for t in draft.model.graph.initializer if len(t.dims) == 1}
    found = {}
    for output in outputs:
        nodes = readers.get(output, [])
        if len(nodes) == 1 and nodes[0].op_type == 'Add':
            (other,) = [n for n in nodes[0].input if n != output] or ['']
            if other in vectors:
                found[output] = (other, nodes[0].output[0])
    return found
