"""TensorRT engines: full TensorRT 10.13 to 11.4, or TensorRT-RTX.

No engine has been executed by this project yet: there was no GPU that one could be built for. The
calls below are held to the real Python bindings of each version, and the logic to a stand-in
(test/backends/test_tensorrt_*.py).

Each host array of `inputs` and `outputs` is page-locked and has a twin on the GPU. `enqueue()`
copies in what no engine writes, runs, copies out what no engine reads, and waits. With a stream
it only queues the engine: the caller copies, as captured_chain.py does for a whole chain.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  NumPy learns 'bfloat16' from it

from vla_trt_ros.backends.base import Array, Buffers, EngineSource, bind
from vla_trt_ros.backends.engine_file import EngineRecord, read_record
from vla_trt_ros.backends.gpu_engine import GpuEngine
from vla_trt_ros.backends.trt_module import TensorRT, find_tensorrt
from vla_trt_ros.config import available, load_platform
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BackendError, ConfigError, NotCapturable
from vla_trt_ros.gpu.cuda import Stream, device_target, is_capturing, pinned
from vla_trt_ros.gpu.mirror import mirrors_of

_DTYPES = {
    'FLOAT': 'float32',
    'HALF': 'float16',
    'BF16': 'bfloat16',
    'INT64': 'int64',
    'INT32': 'int32',
    'UINT8': 'uint8',
    'BOOL': 'bool',
}


class TensorRTEngine(GpuEngine):
    """One plan, deserialised, its tensors bound to fixed addresses on the GPU."""

    def __init__(self, source: EngineSource, buffers: Buffers) -> None:
        self.name = source.name
        if source.file is None or not source.file.is_file():
            raise BackendError(
                f'{source.name}: {source.file} does not exist; build it: vla-trt build.'
            )
        record = read_record(source.file)
        self._trt = find_tensorrt(record.key.flavour)  # type: ignore[arg-type]
        check_fits(source.name, record, self._trt, device_target())
        self._runtime = self._trt.module.Runtime(self._trt.logger)
        self._engine = _deserialize(source, self._trt, self._runtime)
        check_tensors(source, self._engine, self._trt.module)
        self._kernels = RuntimeCache(record)
        self._context = self._kernels.context(self._engine)
        if self._context is None:
            raise BackendError(
                f'{source.name}: TensorRT made no execution context: '
                f'{self._trt.last_errors() or "no reason given"}. It needs '
                f'{(record.activation_bytes or 0) / 1e6:.0f} MB of GPU memory.'
            )
        self._inputs = bind(source.inputs, buffers, _pinned)
        self._outputs = bind(source.outputs, buffers, _pinned)
        self._mirrors = mirrors_of(self._inputs, self._outputs)
        for name, mirror in self._mirrors.items():
            if not self._context.set_tensor_address(name, mirror.address):
                raise BackendError(
                    f'{source.name}: TensorRT did not take the address of {name!r}: '
                    f'{self._trt.last_errors()}.'
                )
        self._stream = Stream()
        self._closed = False

    def enqueue(self, *, stream: int | None = None) -> None:
        """Run once and wait; or queue the engine alone on ``stream`` (a cudaStream_t)."""
        if self._closed:
            raise BackendError(f'{self.name}: the engine is closed; load it again.')
        if stream is not None:
            self._queue(stream)
            return
        self._run_alone(self._stream, self._queue)
        self._kernels.save()

    def _queue(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            kind = NotCapturable if is_capturing(stream) else BackendError
            raise kind(
                f'{self.name}: TensorRT did not queue the engine: {self._trt.last_errors()}.'
            )

    def close(self) -> None:
        """Free the engine; a second call does nothing. Host arrays stay valid."""
        if not self._closed:
            self._closed = True
            self._stream.wait()
            self._stream.close()
            # TensorRT wants them gone in this order.
            self._context = self._engine = self._runtime = None
            self._mirrors = {}


class RuntimeCache:
    """Kernels that TensorRT-RTX compiled for this GPU, kept for the next start. Full TensorRT
    compiles at build time: there this does nothing.
    """

    def __init__(self, record: EngineRecord) -> None:
        root = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        self.file = root / 'vla_trt_ros' / f'{record.plan_sha256[:16]}.{record.key.flavour}'
        self._cache: Any = None

    def context(self, engine: Any) -> Any:
        """An execution context of ``engine``, with the cache where the library has one."""
        config = engine.create_runtime_config()
        if not hasattr(config, 'create_runtime_cache'):
            return engine.create_execution_context()
        self._cache = config.create_runtime_cache()
        with contextlib.suppress(OSError):
            self._cache.deserialize(self.file.read_bytes())
        config.set_runtime_cache(self._cache)
        return engine.create_execution_context(config)

    def save(self) -> None:
        """Write it once, after the first run. A cache that cannot be written costs time alone."""
        if self._cache is None:
            return
        data = bytes(self._cache.serialize())
        self._cache = None
        with contextlib.suppress(OSError):
            if not self.file.exists() or self.file.stat().st_size != len(data):
                self.file.parent.mkdir(parents=True, exist_ok=True)
                aside = self.file.with_name(f'.{self.file.name}.{os.getpid()}')
                aside.write_bytes(data)
                os.replace(aside, self.file)


def check_fits(name: str, record: EngineRecord, trt: TensorRT, device: str) -> None:
    """BackendError unless the engine was built for GPU ``device`` ('sm_120') by this ``trt``."""
    built_for = record.key.target
    if built_for != device:
        raise BackendError(
            f'{name}: the engine was built for {built_for}, this device is {device}: run '
            f'vla-trt build --platform {platform_of(device)}.'
        )
    if record.key.builder_version != trt.version:
        raise BackendError(
            f'{name}: the engine was built by {record.builder}, here is {trt.title}, and a plan '
            f'is read by its own version only: run vla-trt build --platform '
            f'{platform_of(device)}.'
        )


def platform_of(target: str) -> str:
    """The platform file that is for GPU ``target``, 'NAME' where there is none."""
    for name in available('platforms'):
        with contextlib.suppress(ConfigError):
            if load_platform(name).target == target:
                return name
    return 'NAME'


def check_tensors(source: EngineSource, engine: Any, module: Any) -> None:
    """BackendError unless the plan's tensors are those of ``source``."""
    found: dict[str, dict[str, TensorSpec]] = {'input': {}, 'output': {}}
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        role = 'input' if engine.get_tensor_mode(name) == module.TensorIOMode.INPUT else 'output'
        dtype = engine.get_tensor_dtype(name).name
        shape = tuple(int(n) for n in engine.get_tensor_shape(name))
        found[role][name] = TensorSpec(name, shape, _DTYPES.get(dtype, dtype))
    for role, specs in (('input', source.inputs), ('output', source.outputs)):
        for spec in specs:
            have = found[role].pop(spec.name, None)
            if have != spec:
                was = f'{have.dtype} {list(have.shape)}' if have else 'missing'
                raise BackendError(
                    f'{source.name}: {role} {spec.name!r} is {was} in the plan, the manifest says '
                    f'{spec.dtype} {list(spec.shape)}; build it again: vla-trt build.'
                )
        for name in found[role]:
            raise BackendError(
                f'{source.name}: the plan has one more {role}, {name!r}; build it again: '
                'vla-trt build.'
            )


def _deserialize(source: EngineSource, trt: TensorRT, runtime: Any) -> Any:
    assert source.file is not None
    trt.logger.errors.clear()
    # Mapped, not read: weights go from the page cache to the GPU, with no second copy in memory.
    with (
        source.file.open('rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan,
    ):
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(
            f'{source.name}: {trt.title} cannot read {source.file}: '
            f'{trt.last_errors() or "no reason given"}; build it again: vla-trt build.'
        )
    return engine


def _pinned(spec: TensorSpec) -> Array:
    return pinned(spec.shape, spec.dtype)
