"""Which GEMMs of a stage are quantised, and a name for each that all its graphs agree on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from onnx import NodeProto

from vla_trt_ros.backends.base import Array
from vla_trt_ros.export.quantize.draft import Draft

_BLOCK = 16  # the smallest that any precision scales together


@dataclass(frozen=True, slots=True)
class Gemm:
    """A MatMul with a constant right side."""

    node: NodeProto
    activation: str
    weight: str
    """Initialiser, [K, N], or [N, K] where ``transposed``."""
    shape: tuple[int, int]
    """K and N."""
    transposed: bool = False
    latent: bool = False
    """Reads or writes the latent actions."""

    @property
    def kept(self) -> str:
        """Why it is not quantised; '' where it is."""
        if self.latent:
            return 'reads or writes the latent actions'
        rows = self.shape[0]
        return f'{rows} rows are no multiple of {_BLOCK}' if rows % _BLOCK else ''

    def matrix(self, draft: Draft) -> Array:
        """The weight as the source has it, [K, N]."""
        value = draft.original(self.weight)
        return value.T if self.transposed else value


def find_gemms(draft: Draft, stage: str) -> list[Gemm]:
    """Every MatMul with a constant weight, in the order of the graph.

    Kept in the compute dtype: what touches the latent actions, 32 wide. Those two are a thousandth
    of the work, and their rounding goes into every action directly. Of other parts that stay, the
    patch convolution is no MatMul and has one input of 8 bits already, and the time MLP is a
    table of constants by now.
    """
    graph = draft.model.graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    turned = {
        n.output[0]: n.input[0]
        for n in graph.node
        if n.op_type == 'Transpose' and n.input[0] in shapes and len(shapes[n.input[0]]) == 2
    }
    latent = graph.input[0].type.tensor_type.shape.dim[-1].dim_value if stage == 'denoise' else 0
    found = []
    for node in graph.node:
        if node.op_type != 'MatMul':
            continue
        name = node.input[1]
        source = turned.get(name, name)
        shape = shapes.get(source, ())
        if len(shape) != 2:
            continue
        transposed = name in turned
        k, n = (shape[1], shape[0]) if transposed else (shape[0], shape[1])
        found.append(
            Gemm(node, node.input[0], source, (k, n), transposed, latent > 0 and latent in (k, n))
        )
    return found


def weight_key(matrix: Array) -> str:
    """Name of a GEMM: a hash of its weight [K, N], rounded to bfloat16.

    So the float32 and the bfloat16 graph of one network, all prompt buckets and all step counts
    give it the same name.
    """
    rounded = np.ascontiguousarray(matrix).astype(ml_dtypes.bfloat16)
    digest = hashlib.blake2b(rounded.tobytes(), digest_size=12)
    digest.update(repr(rounded.shape).encode())
    return digest.hexdigest()
