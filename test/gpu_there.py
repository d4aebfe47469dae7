"""Marks of the tests that need a GPU."""

import pytest

from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import cuda


def has_gpu():
    try:
        cuda.device_target()
    except BackendError:
        return False
    return True


needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not has_gpu(), reason='needs an NVIDIA GPU')]
