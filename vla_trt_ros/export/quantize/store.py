"""The weight file of a quantised stage, which all graphs of the stage share."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, numpy_helper

from vla_trt_ros.backends.base import Array
from vla_trt_ros.closing import Closing

_ALIGNMENT = 64
_INLINE_BELOW = 1024
"""Bytes; smaller tensors stay in the graph."""
_PACKED = (np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.float4_e2m1fn))


class WeightStore(Closing):
    """Appends tensors to ``path``; what has been stored under a tag is not stored again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open('wb')
        self._stored: dict[str, TensorProto] = {}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def find(self, tag: str) -> TensorProto | None:
        """The tensor that was stored under ``tag``."""
        return self._stored.get(tag)

    def put(self, tag: str, array: Array) -> TensorProto:
        """Store ``array`` under ``tag``: in the file if it is large, else in the tensor itself."""
        tensor = TensorProto(
            data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape
        )
        data = self._bytes(array)
        if data.nbytes >= _INLINE_BELOW:
            self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
            offset = self._file.tell()
            self._file.write(data)
            tensor.raw_data = b''  # set_external_data wants it to be there
            external_data_helper.set_external_data(tensor, self.path.name, offset, data.nbytes)
            tensor.ClearField('raw_data')
        else:
            tensor.raw_data = data.tobytes()
        self._stored[tag] = tensor
        return tensor

    @staticmethod
    def _bytes(array: Array) -> memoryview:
        """As ONNX stores them; without a copy, except for types that it packs."""
        if array.dtype in _PACKED:
            return memoryview(numpy_helper.from_array(array).raw_data)
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

    def save(self, model: onnx.ModelProto, path: Path) -> None:
        """Write ``model``, whose large tensors are stored, beside the weight file."""
        self._file.flush()
        path.write_bytes(model.SerializeToString(deterministic=True))
