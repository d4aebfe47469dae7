"""The weight file of a quantised stage, which all graphs of the stage share."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import onnx
from onnx import TensorProto, external_data_helper

_ALIGNMENT = 64
_INLINE_BELOW = 1024
"""Bytes; smaller tensors stay in the graph."""


class WeightStore:
    """Appends tensors to ``path``; what has been stored under a tag is not stored again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open('wb')
        self._stored: dict[str, TensorProto] = {}

    def __enter__(self) -> WeightStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def find(self, tag: str) -> TensorProto | None:
        """The tensor that was stored under ``tag``."""
        return self._stored.get(tag)

    def put(self, tag: str, tensor: TensorProto) -> TensorProto:
        """Store ``tensor`` (raw data) under ``tag``; it now refers to the file if it is large."""
        data = tensor.raw_data
        if len(data) >= _INLINE_BELOW:
            self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
            offset = self._file.tell()
            self._file.write(data)
            external_data_helper.set_external_data(tensor, self.path.name, offset, len(data))
            tensor.ClearField('raw_data')
        self._stored[tag] = tensor
        return tensor

    def save(self, model: onnx.ModelProto, path: Path) -> None:
        """Write ``model``, whose large tensors are stored, beside the weight file."""
        self._file.flush()
        path.write_bytes(model.SerializeToString(deterministic=True))
