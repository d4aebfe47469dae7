"""What the builder has to know of an ONNX file, without reading its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import external_data_helper

from vla_trt_ros.errors import BundleError


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """Files and sizes of one graph."""

    weight_files: tuple[str, ...]
    """Files beside the graph that hold its external weights, sorted."""
    weight_bytes: int
    """All initialisers of this graph, wherever they lie."""
    attentions: int
    """Attention nodes, and softmaxes, of which a decomposed attention has one each."""


def read_graph(path: Path) -> GraphFacts:
    """Facts of the ONNX file ``path``. BundleError if it is none."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and OSError
        raise BundleError(f'{path} is no ONNX file ({error}); export the bundle again.') from error
    files, size = set(), 0
    for tensor in model.graph.initializer:
        if external_data_helper.uses_external_data(tensor):
            info = external_data_helper.ExternalDataInfo(tensor)
            files.add(info.location)
            size += int(info.length or 0)
        else:
            size += tensor.ByteSize()
    attentions = sum(node.op_type in ('Softmax', 'Attention') for node in model.graph.node)
    return GraphFacts(tuple(sorted(files)), size, attentions)


def graph_sha256(path: Path, facts: GraphFacts, digest_of: Callable[[Path], str]) -> str:
    """One hash over the graph and its weight files; ``digest_of`` gives that of a file."""
    total = hashlib.sha256()
    for file in (path, *(path.parent / name for name in facts.weight_files)):
        total.update(bytes.fromhex(digest_of(file)))
    return total.hexdigest()
