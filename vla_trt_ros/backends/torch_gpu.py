"""What the backends that run on torch share: tensors of host arrays, errors as ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_trt_ros.backends.base import Array
from vla_trt_ros.errors import BackendError, DeviceLost
from vla_trt_ros.gpu import cuda
from vla_trt_ros.gpu.mirror import mirror_of


def as_tensor(array: Array, device: str) -> Tensor:
    """The memory of ``array``, on the GPU that of its mirror, as a tensor that owns nothing."""
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


def gpu_target() -> str:
    """Compute capability of the GPU, as 'sm_90'. BackendError where torch cannot use it."""
    target = cuda.device_target()
    if not torch.cuda.is_available():
        raise BackendError(
            f'torch {torch.__version__} cannot use the GPU ({target}): install its build for '
            "CUDA: pip install 'vla_trt_ros[cuda-graph]'."
        )
    return target


@contextlib.contextmanager
def explained(
    doing: str,
    smaller: str = 'choose a smaller precision, or export fewer --buckets and --steps',
) -> Iterator[None]:
    """Errors of torch as ours: BackendError, DeviceLost where the process has lost the GPU.
    ``smaller`` is what else helps where the GPU is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = cuda.memory()
        raise BackendError(
            f'{doing}: the GPU is full, {free / 1e9:.2f} of {total / 1e9:.2f} GB are free: close '
            f'what else runs on it, {smaller}.'
        ) from error
    except RuntimeError as error:
        if 'CUDA' in str(error):
            _raise_if_lost(doing)
        raise BackendError(f'{doing}: {str(error).strip().splitlines()[0]}') from error


def _raise_if_lost(doing: str) -> None:
    try:
        cuda.synchronize(doing)
    except DeviceLost:
        raise
    except BackendError:
        pass  # a capture is under way, say: torch's own words are better
