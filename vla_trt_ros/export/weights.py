"""One file of weights that many ONNX graphs share.

A graph stores each large tensor as (file, offset, length). Tensors of equal bytes are written
once, whichever graph brings them, so the unrolled loops of all step counts read one set of
weights.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, external_data_helper, numpy_helper

_ALIGNMENT = 64
_INLINE_BELOW = 1024
"""Bytes; smaller tensors (shapes, scalars) stay in the graph, where shape inference sees them."""


class WeightFile:
    """Appends tensors to ``path`` and points graphs at them. Use in a ``with``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open('wb')
        self._offsets: dict[bytes, int] = {}

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def save(self, model: onnx.ModelProto, path: Path) -> None:
        """Write ``model`` to ``path``, its large initialisers to this file.

        ``path`` must be in the folder of the weight file. ``model`` is altered.
        """
        for tensor in model.graph.initializer:
            data = numpy_helper.to_array(tensor).tobytes()
            if len(data) >= _INLINE_BELOW:
                self._move(tensor, data)
        self._file.flush()
        path.write_bytes(model.SerializeToString(deterministic=True))

    def _move(self, tensor: TensorProto, data: bytes) -> None:
        digest = hashlib.sha256(data).digest()
        if digest not in self._offsets:
            self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
            self._offsets[digest] = self._file.tell()
            self._file.write(data)
        tensor.ClearField('raw_data')
        tensor.ClearField('float_data')
        tensor.ClearField('int64_data')
        tensor.raw_data = b''  # set_external_data wants it to be there
        external_data_helper.set_external_data(
            tensor, self.path.name, self._offsets[digest], len(data)
        )
        tensor.ClearField('raw_data')


def constant(name: str, value: ArrayLike, dtype: str) -> TensorProto:
    """An initialiser named ``name``; a number makes a scalar."""
    return numpy_helper.from_array(np.asarray(value, dtype), name)
