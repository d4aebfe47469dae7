"""Our own CUDA kernels: compiled for one GPU by NVRTC, kept on disk, launched through the driver.

A kernel is a .cu file beside the Python that uses it. The machine code is kept under
$XDG_CACHE_HOME/vla_trt_ros/kernels, by a hash of source, target and options: a second start, or a
robot without NVRTC that was given the folder, compiles nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu.cuda import check, device_target, driver, runtime

STANDARD = 'c++17'
_INCLUDE = re.compile(r'^#include "([^"]+)"$', re.MULTILINE)
_DIGEST = hashlib.sha256().digest_size


def cubin(source: Path, target: str, defines: Mapping[str, int] | None = None) -> bytes:
    """Machine code of ``source`` for ``target`` ('sm_90'), from the cache or compiled into it;
    ``defines`` are the numbers that it leaves open.

    Needs no GPU. BackendError if it does not compile, with the compiler's own words.
    """
    opened = ''.join(f'#define {name} {value}\n' for name, value in (defines or {}).items())
    text = opened + source_text(source)
    name = hashlib.sha256('\0'.join((text, target, STANDARD)).encode()).hexdigest()
    file = cache_dir() / f'{source.stem}-{target}-{name[:16]}.cubin'
    found = _read(file)
    if found is None:
        found = compile_source(text, source.name, target)
        _write(file, found)
    return found


def source_text(source: Path) -> str:
    """``source`` with the files that it includes by name, from its own folder, in their places."""
    text = source.read_text(encoding='utf-8')
    return _INCLUDE.sub(lambda found: source_text(source.parent / found[1]), text)


def cache_dir() -> Path:
    """Where machine code is kept."""
    root = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return root / 'vla_trt_ros' / 'kernels'


def compile_source(text: str, name: str, target: str) -> bytes:
    """Machine code of CUDA C++ ``text`` for ``target``. BackendError if it does not compile."""
    try:
        from cuda.core import Program, ProgramOptions
    except ImportError:
        try:  # its name before 0.5
            from cuda.core.experimental import Program, ProgramOptions
        except ImportError as error:
            raise BackendError(
                f"{name} is compiled by cuda-core ({error}): pip install 'vla_trt_ros[tensorrt]'."
            ) from error
    options = ProgramOptions(name=name, arch=target, std=STANDARD)
    try:
        return bytes(Program(text, 'c++', options).compile('cubin').code)
    except Exception as error:
        raise BackendError(f'{name} for {target}: {error}{_remedy(str(error))}') from error


def _remedy(text: str) -> str:
    if 'libnvrtc' in text:
        return ' NVRTC is missing: install the CUDA toolkit, or pip install nvidia-cuda-nvrtc.'
    if 'invalid value for --gpu-architecture' in text:
        return ' This NVRTC does not know the GPU: sm_110 and later need CUDA 13.'
    return ''


def _read(file: Path) -> bytes | None:
    """What `_write` kept; None if there is nothing, or a file that was cut or altered."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    digest, code = data[:_DIGEST], data[_DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(file: Path, code: bytes) -> None:
    # A disk that is full or read-only costs the next start a compilation, nothing else.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
            part.write(hashlib.sha256(code).digest() + code)
        os.replace(part.name, file)


class Kernel:
    """The function ``name`` of the .cu file ``source``, for this machine's GPU.

    ``defines``: as `cubin`. ``target`` is another than the GPU's plain one ('sm_90a'). ``shared``
    is dynamic shared memory of a block, bytes. The blocks of a ``cooperative`` kernel run all at
    once, or not at all. A ``chained`` kernel is launched before the one in front of it has ended,
    and waits for it itself (griddepcontrol; compute capability 9.0).
    """

    def __init__(
        self,
        source: Path,
        name: str,
        *,
        target: str = '',
        defines: Mapping[str, int] | None = None,
        shared: int = 0,
        cooperative: bool = False,
        chained: bool = False,
    ) -> None:
        check(runtime().cudaFree(0), 'starting the GPU')
        code = cubin(source, target or device_target(), defines)
        cu = driver()
        self._context = check(cu.cuCtxGetCurrent(), 'asking for the GPU context')
        self.name = name
        self._module = check(cu.cuModuleLoadData(code), f'loading {source.name}')
        self._function = check(
            cu.cuModuleGetFunction(self._module, name.encode()), f'finding {name} in {source.name}'
        )
        self._shared, self._cooperative, self._chained = shared, cooperative, chained
        if shared:
            limit = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            check(
                cu.cuFuncSetAttribute(self._function, limit, shared),
                f'giving {name} {shared} bytes of shared memory',
            )

    def launch(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[Any],
        stream: int,
        *,
        cluster: int = 1,
    ) -> None:
        """Queue it on ``stream``; ``arguments`` are ctypes values, copied before this returns.

        Every ``cluster`` blocks are together on neighbouring multiprocessors.
        """
        cu = driver()
        # The driver, unlike the runtime, wants to be told in each thread.
        check(cu.cuCtxSetCurrent(self._context), 'using the GPU')
        addresses = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        parameters = ctypes.addressof(addresses)
        shape = (*grid, *block, self._shared)
        if self._chained or cluster > 1:
            config = self._config(shape, stream, cluster)
            launched = cu.cuLaunchKernelEx(config, self._function, parameters, 0)
        elif self._cooperative:
            launched = cu.cuLaunchCooperativeKernel(self._function, *shape, stream, parameters)
        else:
            launched = cu.cuLaunchKernel(self._function, *shape, stream, parameters, 0)
        check(launched, f'launching {self.name}')

    def _config(self, shape: tuple[int, ...], stream: int, cluster: int) -> Any:
        cu = driver()
        kinds, attributes = cu.CUlaunchAttributeID, []
        if self._chained:
            chain = cu.CUlaunchAttribute()
            chain.id = kinds.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            chain.value.programmaticStreamSerializationAllowed = 1
            attributes.append(chain)
        if self._cooperative:
            whole = cu.CUlaunchAttribute()
            whole.id = kinds.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
            whole.value.cooperative = 1
            attributes.append(whole)
        if cluster > 1:
            together = cu.CUlaunchAttribute()
            together.id = kinds.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            together.value.clusterDim.x = cluster
            together.value.clusterDim.y = together.value.clusterDim.z = 1
            attributes.append(together)
        config = cu.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = shape[:3]
        config.blockDimX, config.blockDimY, config.blockDimZ = shape[3:6]
        config.sharedMemBytes, config.hStream = shape[6], cu.CUstream(stream)
        config.attrs, config.numAttrs = attributes, len(attributes)
        return config
