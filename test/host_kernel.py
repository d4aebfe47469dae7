"""Our .cu files on a processor: C++, compiled once a session, launched as gpu.kernels.Kernel."""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from vla_trt_ros.perception import candidates
from vla_trt_ros.preprocess.cuda import images, squares


@functools.cache
def library(source, names):
    compiler = os.environ.get('CXX') or shutil.which('c++')
    if compiler is None:
        pytest.skip('needs a C++ compiler')
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / 'kernels.so'
        options = ['-std=c++17', '-O2', '-Wall', '-Wextra', '-Werror', '-Wno-unknown-pragmas']
        options += [
            '-ffp-contract=off',
            '-shared',
            '-fPIC',
            f'-DKERNEL_FILE="{source}"',
            '-x',
            'c++',
        ]
        options += ['-DKERNELS=' + ' '.join(f'HOST_LAUNCH({name})' for name in names)]
        file = Path(__file__).with_name('host_kernel.cpp')
        subprocess.run([compiler, *options, file, '-o', made], check=True)
        return ctypes.CDLL(str(made))


class Host:
    """Kernel ``name`` of ``source``, one of ``names``; `launch` runs it at once. It counts its
    launches.
    """

    def __init__(self, source, name, names):
        self._run = getattr(library(source, names), f'host_{name}')
        self.launches = 0

    def launch(self, grid, block, arguments, stream):
        addresses = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        self._run((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), addresses)
        self.launches += 1


class HostKernel(Host):
    """images.cu for an input of ``bits`` a number."""

    def __init__(self, bits):
        super().__init__(
            images.SOURCE, f'write_images_{bits}', ('write_images_16', 'write_images_32')
        )


class HostCandidates(Host):
    """candidates.cu."""

    def __init__(self):
        super().__init__(candidates.SOURCE, 'best_labels', ('best_labels',))


class HostSquares(Host):
    """squares.cu for an input of ``bits`` a number."""

    def __init__(self, bits=32):
        super().__init__(
            squares.SOURCE, f'write_square_{bits}', ('write_square_16', 'write_square_32')
        )


class Queued:
    """``kernel`` on a LazyCuda: it runs when its stream does, with the arguments of its launch."""

    def __init__(self, gpu, kernel):
        self._gpu, self._kernel = gpu, kernel

    def launch(self, grid, block, arguments, stream):
        kept = [type(a).from_buffer_copy(a) for a in arguments]
        self._gpu.log.append('kernel')
        self._gpu.put(stream, lambda: self._kernel.launch(grid, block, kept, stream))
