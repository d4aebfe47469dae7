"""Attention of the prefix by kernels/prefix_attention.cu: what it serves, and its launch."""

from __future__ import annotations

import ctypes
import math
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from vla_trt_ros.gpu.kernels import Kernel
from vla_trt_ros.gpu.tensor_map import bfloat16_matrix
from vla_trt_ros.policies.pi05.cuda.fold import FP8

SOURCE = Path(__file__).parent / 'kernels' / 'prefix_attention.cu'
TARGET = 'sm_90a'
THREADS = 384
ROWS, TILE, DIM = 128, 64, 256
"""Rows of a block, keys of a tile, columns of a head."""
MOST_BLOCKS = 4
"""Of a cluster, which share out the keys of the same rows."""
SHARED = (64 + 2 * 32 + 2 * 32 + 4 + 2) * 1024
"""Bytes of a block: queries, two tiles of keys and of values, weights, the rest with alignment."""


def serves(q: Tensor) -> bool:
    """Whether the kernel takes queries ``q`` [rows, columns] of a head, on this GPU."""
    if q.shape[1] != DIM or q.dtype != torch.bfloat16:
        return False
    return bool(torch.cuda.get_device_capability(q.device) == (9, 0))


def attend(
    q: Tensor, keys: Tensor, values: Tensor, valid: Tensor, out: Tensor, inverse: float
) -> None:
    """Queues attention of ``q``, bfloat16 [rows, 256], to the first ``valid`` (int32 [1]) rows of
    ``keys`` and ``values``, bfloat16 [positions, 256], on the current stream.

    ``out``, as many numbers in bfloat16 or FP8, is written times ``inverse``.
    """
    assert all(t.is_contiguous() for t in (q, keys, values, out))
    count = q.shape[0]
    groups = -(-count // ROWS)
    processors = torch.cuda.get_device_properties(q.device).multi_processor_count
    cluster = max(1, min(MOST_BLOCKS, processors // groups))
    _kernel(cluster).launch(
        (groups * cluster, 1, 1),
        (THREADS, 1, 1),
        (
            bfloat16_matrix(q.data_ptr(), count, DIM, ROWS),
            bfloat16_matrix(keys.data_ptr(), keys.shape[0], DIM, TILE),
            bfloat16_matrix(values.data_ptr(), values.shape[0], DIM, TILE),
            ctypes.c_void_p(out.data_ptr()),
            ctypes.c_void_p(valid.data_ptr()),
            ctypes.c_float(inverse),
            ctypes.c_float(math.log2(math.e) / math.sqrt(DIM)),
            ctypes.c_int(count),
            ctypes.c_int(out.dtype == FP8),
        ),
        torch.cuda.current_stream().cuda_stream,
        cluster=cluster,
    )


@cache
def _kernel(cluster: int) -> Kernel:
    name = f'prefix_attention_{cluster}'
    return Kernel(SOURCE, name, target=TARGET, shared=SHARED, chained=True)
