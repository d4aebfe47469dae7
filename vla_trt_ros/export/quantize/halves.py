"""Float32 weights that a graph stores as float16, with a Cast behind each: half the bytes.

Only weights that float16 holds exactly are stored so, hence the graph's numbers stay as they are,
bit for bit; round the weights first (pi05/parameters.py) and all large ones are. Runtimes fold the
Cast when they load the graph.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from vla_trt_ros.backends.base import Array
from vla_trt_ros.export.quantize.draft import Content, Draft, drop_unused, open_draft
from vla_trt_ros.export.quantize.store import WeightStore

_SMALLEST = 4096
"""Bytes of float32; below, the Cast in every graph would cost what the weight saves."""


def store_halves(draft: Draft) -> int:
    """Store as float16 what it holds exactly; how many weights that were."""
    drop_unused(draft.model)
    graph = draft.model.graph
    casts = []
    for tensor in list(graph.initializer):
        content = draft.contents.get(tensor.name)
        if content is None or tensor.data_type != TensorProto.FLOAT:
            continue
        if 4 * np.prod(tensor.dims) < _SMALLEST or not _exact(content.make()):
            continue
        name, make = f'{tensor.name}_half', content.make
        graph.initializer.remove(tensor)
        half = Content(f'{content.tag}>half', lambda make=make: _half(make()), content.original)  # type: ignore[misc]
        draft.announce(name, 'float16', tuple(tensor.dims), half)
        cast = helper.make_node('Cast', [name], [tensor.name], to=TensorProto.FLOAT)
        casts.append(cast)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(casts)


def repack(graphs: Sequence[Path], weights: Path) -> None:
    """Store the weights of ``graphs``, which lie beside their file ``weights``, as halves."""
    with tempfile.TemporaryDirectory(prefix='.halves.', dir=weights.parent) as folder:
        aside = Path(folder)
        with WeightStore(aside / weights.name) as store:
            for path in graphs:
                draft = open_draft(path)
                store_halves(draft)
                draft.write(aside / path.name, store)
        for path in (*graphs, weights):
            os.replace(aside / path.name, path)


def _exact(array: Array) -> bool:
    with np.errstate(over='ignore'):
        half = _half(array)
    return bool(np.array_equal(half.astype(np.float32), array))


def _half(array: Array) -> Array:
    return np.asarray(array, np.float16)
