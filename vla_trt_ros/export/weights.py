"""One file of weights that many ONNX graphs share.

A graph stores each large tensor as (file, offset, length). Tensors of equal bytes are written
once, whichever graph brings them, so the unrolled loops of all step counts read one set of
weights. Pending weights (weightless.py) are loaded, written and dropped one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, external_data_helper, numpy_helper
from torch import Tensor

from vla_trt_ros.closing import Closing
from vla_trt_ros.export.weightless import Recipe, Traced, as_bytes, is_pending

_ALIGNMENT = 64
_INLINE_BELOW = 1024
"""Bytes; smaller tensors (shapes, scalars) stay in the graph, where shape inference sees them."""


class WeightFile(Closing):
    """Appends tensors to ``path`` and points graphs at them. Use in a ``with``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open('wb')
        self._places: dict[bytes | Recipe, tuple[int, int]] = {}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def save(self, model: onnx.ModelProto, path: Path) -> None:
        """Write ``model`` to ``path``, its large initialisers to this file.

        ``path`` must be in the folder of the weight file. ``model`` is altered.
        """
        self.save_traced(Traced(model, {}), path, _nothing_to_load)

    def save_traced(self, traced: Traced, path: Path, load: Callable[[str], Tensor]) -> None:
        """As `save`; ``load`` gives the parameters that the pending initialisers are made of."""
        for tensor in traced.model.graph.initializer:
            if is_pending(tensor):
                recipe = traced.recipes[tensor.name]
                if recipe not in self._places:
                    self._places[recipe] = self._append(as_bytes(recipe.cook(load)))
                self._point(tensor, self._places[recipe])
            else:
                self._move(tensor)
        self._file.flush()
        path.write_bytes(traced.model.SerializeToString(deterministic=True))

    def _move(self, tensor: TensorProto) -> None:
        data = numpy_helper.to_array(tensor).tobytes()
        if len(data) >= _INLINE_BELOW:
            digest = hashlib.sha256(data).digest()
            if digest not in self._places:
                self._places[digest] = self._append(memoryview(data))
            self._point(tensor, self._places[digest])

    def _append(self, data: memoryview) -> tuple[int, int]:
        self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
        offset = self._file.tell()
        self._file.write(data)
        return offset, len(data)

    def _point(self, tensor: TensorProto, place: tuple[int, int]) -> None:
        tensor.ClearField('float_data')
        tensor.ClearField('int64_data')
        tensor.raw_data = b''  # set_external_data wants it to be there
        external_data_helper.set_external_data(tensor, self.path.name, *place)
        tensor.ClearField('raw_data')


def _nothing_to_load(name: str) -> Tensor:
    raise KeyError(f'{name} is pending, and there is no checkpoint to read it from')


def constant(name: str, value: ArrayLike, dtype: str) -> TensorProto:
    """An initialiser named ``name``; a number makes a scalar."""
    return numpy_helper.from_array(np.asarray(value, dtype), name)
