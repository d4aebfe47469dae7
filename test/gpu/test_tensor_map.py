"""What is told to the driver of a matrix that boxes are taken of."""

import ctypes
from types import SimpleNamespace

import pytest

from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import tensor_map


class Driver:
    """cuda.bindings.driver, as far as a map needs it."""

    status = 0

    def __getattr__(self, name):
        return SimpleNamespace(**{n: n for n in CONSTANTS}) if name.startswith('CU') else int

    def cuTensorMapEncodeTiled(self, *told):  # noqa: N802 - as in the driver
        self.told = told
        self.memory = (ctypes.c_uint64 * 16)(*range(100, 116))
        made = SimpleNamespace(getPtr=lambda: ctypes.addressof(self.memory))
        return self.status, made


CONSTANTS = (
    'CU_TENSOR_MAP_DATA_TYPE_BFLOAT16',
    'CU_TENSOR_MAP_INTERLEAVE_NONE',
    'CU_TENSOR_MAP_SWIZZLE_128B',
    'CU_TENSOR_MAP_L2_PROMOTION_L2_256B',
    'CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE',
)


@pytest.fixture
def driver(monkeypatch):
    made = Driver()
    monkeypatch.setattr(tensor_map, 'driver', lambda: made)
    return made


def test_columns_come_first_and_strides_are_bytes(driver):
    made = tensor_map.bfloat16_matrix(4096, 976, 256, 64)
    dtype, rank, address, sizes, strides, box, steps, *_, swizzle, _, fill = driver.told
    assert dtype == 'CU_TENSOR_MAP_DATA_TYPE_BFLOAT16'
    assert (rank, address) == (2, 4096)
    assert (sizes, strides, box, steps) == ([256, 976], [512], [64, 64], [1, 1])
    assert swizzle == 'CU_TENSOR_MAP_SWIZZLE_128B'
    assert fill == 'CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE'
    assert list(made.opaque) == list(range(100, 116))


def test_what_the_driver_refuses_is_named(driver):
    driver.status = 1
    with pytest.raises(BackendError, match='a matrix of 976 x 250 to the GPU: CUDA says 1'):
        tensor_map.bfloat16_matrix(4096, 976, 250, 64)
