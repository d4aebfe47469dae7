"""GPU memory of spec.py's arrays as tensors, which own nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_trt_ros.backends.base import Array
from vla_trt_ros.gpu.mirror import mirror_of


def as_tensor(array: Array, device: str) -> Tensor:
    """The memory of ``array``, on the GPU that of its mirror, as a tensor."""
    raw: Any
    if device == 'cpu':
        raw = torch.from_numpy(array.reshape(-1).view(np.uint8))
    else:
        raw = torch.as_tensor(_Memory(mirror_of(array).address, array.nbytes), device=device)
    flat: Tensor = raw.view(getattr(torch, array.dtype.name))
    return flat.reshape(array.shape)


class _Memory:
    """GPU memory that torch shall take as it is."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            'shape': (nbytes,),
            'typestr': '|u1',
            'data': (address, False),
            'version': 3,
        }
