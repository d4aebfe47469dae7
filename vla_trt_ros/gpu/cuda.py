"""CUDA's runtime through cuda-python, as far as the backends use it.

Every call is checked: BackendError has CUDA's own name and text of the error. Addresses and
handles are integers, so that a library which wants them needs no type of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.errors import BackendError, DeviceLost


@cache
def runtime() -> Any:
    """``cuda.bindings.runtime``. BackendError where cuda-python is not installed."""
    try:
        from cuda.bindings import runtime as cudart
    except ImportError as error:
        raise BackendError(
            f"the GPU needs cuda-python ({error}): pip install 'vla_trt_ros[tensorrt]'."
        ) from error
    return cudart


@cache
def driver() -> Any:
    """``cuda.bindings.driver``, for kernels of our own. BackendError as `runtime`."""
    runtime()
    from cuda.bindings import driver as cu

    return cu


class Traffic(threading.local):
    """Host-to-device copies that the calling thread has queued, and their bytes: rising counts,
    of which a caller takes differences. A graph counts its copies at every launch.
    """

    uploads = 0
    upload_bytes = 0

    def add(self, uploads: int, upload_bytes: int) -> None:
        """Count more."""
        self.uploads += uploads
        self.upload_bytes += upload_bytes


traffic = Traffic()


def check(result: tuple[Any, ...], doing: str) -> Any:
    """The values of a CUDA call's ``result``, without its status: one alone, or a tuple.

    ``doing`` says in the BackendError what was tried.
    """
    status, *values = result
    if int(status) != 0:
        text = ''
        with contextlib.suppress(Exception):
            text = runtime().cudaGetErrorString(status)[1].decode()
        name = getattr(status, 'name', str(int(status)))
        kind = DeviceLost if name in LOST else BackendError
        raise kind(f'{doing}: CUDA says {name}, {text or "no more"}.{_remedy(name)}')
    return values[0] if len(values) == 1 else tuple(values)


LOST = frozenset(
    f'cudaError{name}'
    for name in (
        'Assert',
        'ContextIsDestroyed',
        'ECCUncorrectable',
        'HardwareStackError',
        'IllegalAddress',
        'IllegalInstruction',
        'InvalidAddressSpace',
        'InvalidPc',
        'LaunchFailure',
        'LaunchTimeout',
        'MisalignedAddress',
        'NvlinkUncorrectable',
        'Unknown',
    )
)
"""Errors after which CUDA fails every call of the process: only a new process helps."""


def _remedy(name: str) -> str:
    if name in LOST:
        return ' The GPU is lost to this process: restart the node.'
    if name == 'cudaErrorMemoryAllocation':
        return ' The GPU is full: close what else runs on it, or choose a smaller precision.'
    if name in ('cudaErrorInsufficientDriver', 'cudaErrorNoDevice'):
        return ' There is no NVIDIA GPU or driver here: choose platform cpu.'
    return ''


def device_target(index: int = 0) -> str:
    """Compute capability of a GPU, as 'sm_120'. BackendError where there is none."""
    major = _attribute('cudaDevAttrComputeCapabilityMajor', index)
    minor = _attribute('cudaDevAttrComputeCapabilityMinor', index)
    return f'sm_{major}{minor}'


def memory(index: int = 0) -> tuple[int, int]:
    """Free and total bytes of a GPU. BackendError where there is none."""
    cudart = runtime()
    check(cudart.cudaSetDevice(index), 'choosing the GPU')
    free, total = check(cudart.cudaMemGetInfo(), 'asking the GPU for its memory')
    return int(free), int(total)


def is_integrated(index: int = 0) -> bool:
    """Whether GPU and processor share one memory, as on a Jetson."""
    return bool(_attribute('cudaDevAttrIntegrated', index))


def _attribute(name: str, index: int) -> int:
    cudart = runtime()
    which = getattr(cudart.cudaDeviceAttr, name)
    return int(check(cudart.cudaDeviceGetAttribute(which, index), 'asking the GPU what it is'))


def synchronize(doing: str) -> None:
    """Wait for all that the process queued. BackendError if any of it failed."""
    check(runtime().cudaDeviceSynchronize(), doing)


class Stream:
    """A stream that does not wait for the default one. ``handle`` is its cudaStream_t.

    Kernels of one with a higher ``urgency``, also those of graphs captured on it, go before those
    of others that wait for the same multiprocessors.
    """

    def __init__(self, *, urgency: int = 0) -> None:
        cudart = runtime()
        flags = cudart.cudaStreamNonBlocking
        if urgency:
            ranges = cudart.cudaDeviceGetStreamPriorityRange()
            least, greatest = check(ranges, 'asking the GPU for its priorities')
            priority = max(greatest, least - urgency)  # lower numbers go first
            made = cudart.cudaStreamCreateWithPriority(flags, priority)
        else:
            made = cudart.cudaStreamCreateWithFlags(flags)
        self.handle = int(check(made, 'making a stream'))
        self._finalizer = weakref.finalize(self, cudart.cudaStreamDestroy, self.handle)

    def wait(self) -> None:
        """Until all that was queued is done. BackendError if any of it failed."""
        check(runtime().cudaStreamSynchronize(self.handle), 'running on the GPU')

    def close(self) -> None:
        """Destroy it; a second call does nothing."""
        self._finalizer()


class Event:
    """A point in a stream, for times; with ``timing`` off it only orders, and costs less. With
    ``asleep`` whoever waits for it leaves the processor to others, and hears of it later.
    """

    def __init__(self, *, timing: bool = True, asleep: bool = False) -> None:
        cudart = runtime()
        flags = 0 if timing else cudart.cudaEventDisableTiming
        flags |= cudart.cudaEventBlockingSync if asleep else 0
        self._event = check(cudart.cudaEventCreateWithFlags(flags), 'making an event')
        self._finalizer = weakref.finalize(self, cudart.cudaEventDestroy, self._event)

    def record(self, stream: int) -> None:
        """Happen on ``stream`` after what is queued there."""
        check(runtime().cudaEventRecord(self._event, stream), 'recording an event')

    def record_in_graph(self, stream: int) -> None:
        """As `record`; where ``stream`` is being captured, happen at every launch of the graph."""
        cudart = runtime()
        # CUDA refuses the flag outside of a capture.
        flags = cudart.cudaEventRecordExternal if is_capturing(stream) else 0
        check(cudart.cudaEventRecordWithFlags(self._event, stream, flags), 'recording an event')

    def wait(self) -> None:
        """Until it has happened; at once if it was never recorded."""
        check(runtime().cudaEventSynchronize(self._event), 'waiting for an event')

    def hold(self, stream: int) -> None:
        """Let ``stream`` go on only when it has happened; the caller does not wait."""
        check(runtime().cudaStreamWaitEvent(stream, self._event, 0), 'ordering two streams')

    def since(self, before: Event, *, wait: bool = True) -> float:
        """Milliseconds from ``before`` to this one; waits for this one, unless it has happened
        for certain.
        """
        if wait:
            self.wait()
        times = runtime().cudaEventElapsedTime(before._event, self._event)
        return float(check(times, 'reading events'))


class DeviceBuffer:
    """``nbytes`` bytes on the GPU at ``address``, zeroed; freed with the object."""

    def __init__(self, nbytes: int) -> None:
        cudart = runtime()
        made = check(cudart.cudaMalloc(max(nbytes, 1)), f'allocating {nbytes} bytes on the GPU')
        self.address, self.nbytes = int(made), nbytes
        self._finalizer = weakref.finalize(self, cudart.cudaFree, self.address)
        check(cudart.cudaMemset(self.address, 0, max(nbytes, 1)), 'clearing GPU memory')
        # Our streams do not wait for the default one: zeros must not land on what they copy.
        check(cudart.cudaStreamSynchronize(0), 'clearing GPU memory')

    def close(self) -> None:
        """Free it; a second call does nothing."""
        self._finalizer()


def pinned(shape: tuple[int, ...], dtype: Any, *, mapped: bool = False) -> NDArray[Any]:
    """A zeroed page-locked array: copies to and from the GPU do not wait for the processor.

    With ``mapped`` the GPU can also read it in place, at its `device_address`.
    """
    cudart = runtime()
    flags = cudart.cudaHostAllocMapped if mapped else cudart.cudaHostAllocDefault
    kind = np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    address = int(
        check(
            cudart.cudaHostAlloc(max(nbytes, 1), flags),
            f'allocating {nbytes} bytes of page-locked memory',
        )
    )
    raw = (ctypes.c_uint8 * nbytes).from_address(address)
    ctypes.memset(address, 0, nbytes)
    # NumPy keeps ``raw`` alive as the base of the array and of every view.
    weakref.finalize(raw, cudart.cudaFreeHost, address)
    array: NDArray[Any] = np.frombuffer(raw, np.uint8).view(kind).reshape(shape)
    return array


def device_address(array: NDArray[Any]) -> int:
    """Where the GPU finds a mapped array."""
    found = runtime().cudaHostGetDevicePointer(array.ctypes.data, 0)
    return int(check(found, 'asking for the GPU address of host memory'))


def is_pinned(array: NDArray[Any]) -> bool:
    """Whether the memory of ``array`` is page-locked."""
    cudart = runtime()
    found = check(cudart.cudaPointerGetAttributes(array.ctypes.data), 'asking about a pointer')
    return bool(found.type == cudart.cudaMemoryType.cudaMemoryTypeHost)


def upload(address: int, array: NDArray[Any], stream: int) -> None:
    """Queue a copy of ``array`` to the GPU."""
    cudart = runtime()
    kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
    check(
        cudart.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, stream),
        'copying to the GPU',
    )
    traffic.add(1, array.nbytes)


def download(array: NDArray[Any], address: int, stream: int) -> None:
    """Queue a copy from the GPU into ``array``."""
    cudart = runtime()
    kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
    check(
        cudart.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, stream),
        'copying from the GPU',
    )


def clear(address: int, nbytes: int, stream: int) -> None:
    """Queue zeros."""
    check(runtime().cudaMemsetAsync(address, 0, nbytes, stream), 'clearing GPU memory')


class Graph:
    """What was queued while it was captured, launched again as one thing.

    ``uploads`` and ``upload_bytes`` are the host-to-device copies in it.
    """

    def __init__(self, executable: Any, uploads: int = 0, upload_bytes: int = 0) -> None:
        self._executable = executable
        self.uploads, self.upload_bytes = uploads, upload_bytes
        self._finalizer = weakref.finalize(self, runtime().cudaGraphExecDestroy, executable)

    def launch(self, stream: int) -> None:
        """Queue it on ``stream``."""
        check(runtime().cudaGraphLaunch(self._executable, stream), 'launching a CUDA graph')
        traffic.add(self.uploads, self.upload_bytes)

    def close(self) -> None:
        """Destroy it; a second call does nothing."""
        self._finalizer()


def is_capturing(stream: int) -> bool:
    """Whether ``stream`` is being captured."""
    cudart = runtime()
    status = check(cudart.cudaStreamIsCapturing(stream), 'asking about a capture')
    return bool(int(status))


@contextlib.contextmanager
def capturing(stream: int) -> Iterator[list[Graph]]:
    """What is queued on ``stream`` inside the block becomes the one Graph of the list.

    Nothing runs meanwhile. The capture is ended also when the block raises.
    """
    cudart = runtime()
    mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    check(cudart.cudaStreamBeginCapture(stream, mode), 'beginning a capture')
    graphs: list[Graph] = []
    before = traffic.uploads, traffic.upload_bytes
    try:
        yield graphs
    except BaseException:
        cudart.cudaStreamEndCapture(stream)  # the first error is the one to tell
        raise
    # Captured copies have not run: they count when the graph does.
    copies = traffic.uploads - before[0], traffic.upload_bytes - before[1]
    traffic.uploads, traffic.upload_bytes = before
    captured = check(cudart.cudaStreamEndCapture(stream), 'ending a capture')
    try:
        executable = check(cudart.cudaGraphInstantiate(captured, 0), 'making a graph')
        graphs.append(Graph(executable, *copies))
    finally:
        cudart.cudaGraphDestroy(captured)
