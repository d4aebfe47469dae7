"""How the copy engine of a GPU finds a matrix: boxes, swizzled as matrix instructions read."""

from __future__ import annotations

import ctypes

from vla_trt_ros.gpu.cuda import check, driver

BOX_COLUMNS = 64
"""Of two bytes each: 128 bytes, which is what the swizzle goes over."""


class TensorMap(ctypes.Structure):
    """The driver's CUtensorMap, as a kernel's argument."""

    _fields_ = (('opaque', ctypes.c_uint64 * 16),)


def bfloat16_matrix(address: int, rows: int, columns: int, box_rows: int) -> TensorMap:
    """A row-major bfloat16 matrix at ``address``, which boxes of ``box_rows`` x BOX_COLUMNS are
    taken of; beyond its last row they hold zeros.

    Compute capability 9.0 or later. BackendError if the driver refuses it.
    """
    cu = driver()
    made = check(
        cu.cuTensorMapEncodeTiled(
            cu.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            2,
            address,
            [cu.cuuint64_t(columns), cu.cuuint64_t(rows)],
            [cu.cuuint64_t(2 * columns)],
            [cu.cuuint32_t(BOX_COLUMNS), cu.cuuint32_t(box_rows)],
            [cu.cuuint32_t(1), cu.cuuint32_t(1)],
            cu.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            cu.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
            cu.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            cu.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        ),
        f'describing a matrix of {rows} x {columns} to the GPU',
    )
    return TensorMap.from_buffer_copy(ctypes.string_at(made.getPtr(), ctypes.sizeof(TensorMap)))
