"""images.cu on a processor: compiled as C++ once a session, launched as gpu.kernels.Kernel is."""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from vla_trt_ros.preprocess.cuda.images import SOURCE


@functools.cache
def library():
    compiler = os.environ.get('CXX') or shutil.which('c++')
    if compiler is None:
        pytest.skip('needs a C++ compiler')
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / 'images.so'
        options = ['-std=c++17', '-O2', '-Wall', '-Wextra', '-Werror', '-Wno-unknown-pragmas']
        options += ['-shared', '-fPIC', f'-DKERNEL_FILE="{SOURCE}"', '-x', 'c++']
        source = Path(__file__).with_name('host_kernel.cpp')
        subprocess.run([compiler, *options, source, '-o', made], check=True)
        return ctypes.CDLL(str(made))


class HostKernel:
    """`launch` runs it at once. It counts its launches."""

    def __init__(self, bits):
        self._run = getattr(library(), f'host_write_images_{bits}')
        self.launches = 0

    def launch(self, grid, block, arguments, stream):
        addresses = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        self._run((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), addresses)
        self.launches += 1
