"""What the GPU is called."""

from __future__ import annotations

from vla_trt_ros.gpu.cuda import check, runtime


def device_name(index: int = 0) -> str:
    """As its driver names it: 'NVIDIA H200'. BackendError where there is none."""
    properties = check(runtime().cudaGetDeviceProperties(index), 'asking the GPU for its name')
    name: bytes = properties.name
    return name.decode().rstrip('\0')
