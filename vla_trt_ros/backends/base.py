"""The protocol of a loaded stage, and the buffers that stages hand on to each other.

Stages of a chain are bound to one dictionary of buffers: a tensor that one stage writes and the
next one reads is the same memory, so nothing is copied between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu.mirror import Mirror

Array = NDArray[Any]
Buffers = MutableMapping[str, Array]

_ALIGNMENT = 64  # a cache line, and the widest vector load


class Shared(Protocol):
    """What several engines of a policy have in common, such as weights."""

    def load(self) -> None:
        """Called when all engines of the policy are made: ask for memory in one go. BackendError
        if there is too little.
        """
        ...

    def close(self) -> None:
        """Give it back, after the engines are closed; a second call does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class EngineSource:
    """What a backend needs to load a stage. ``file`` is None for backends that need none."""

    name: str
    """For messages: 'denoise, 64 tokens, 10 steps'."""
    file: Path | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str = 'fp32'
    threads: int = 1
    """CPU threads the engine may use."""
    stage: str = ''
    """'vision', 'prefix' or 'denoise', for backends that keep several in one file."""
    prompt_bucket: int | None = None
    num_steps: int | None = None
    shared: MutableMapping[str, Shared] = field(default_factory=dict)
    """What the engines of one policy share; a backend keeps there what it loads once."""


class Engine(Protocol):
    """One loaded stage, bound to its buffers for life.

    Made by ``Class(source, buffers)``: tensors named in ``buffers`` are used as they are, the
    others are allocated and added to it. BackendError if the engine cannot be loaded, or if its
    tensors differ from ``source`` in name, shape or dtype.

    The caller writes to ``inputs``, calls ``enqueue`` and reads ``outputs``. Addresses never
    change. Outputs stay valid until the next enqueue of any engine that writes them; copy to keep.
    """

    @property
    def inputs(self) -> Mapping[str, Array]:
        """Arrays that the engine reads."""
        ...

    @property
    def outputs(self) -> Mapping[str, Array]:
        """Arrays that the engine writes."""
        ...

    def enqueue(self, *, stream: int | None = None) -> None:
        """Run once. A CPU engine is done on return; a GPU engine has queued it on ``stream``.

        Allocates nothing. BackendError if the run fails or the engine is closed.
        """
        ...

    def close(self) -> None:
        """Give the engine's resources back; a second call does nothing. Buffers stay valid."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class DeviceEngine(Engine, Protocol):
    """An engine on a GPU. Host arrays that it exchanges with the caller are page-locked."""

    @property
    def name(self) -> str:
        """For messages: 'denoise, 64 tokens, 10 steps'."""
        ...

    @property
    def mirrors(self) -> Mapping[str, Mirror]:
        """GPU memory of inputs and outputs. A tensor that the backend keeps to itself has none."""
        ...

    @property
    def on_gpu(self) -> bool:
        """True, but for an engine whose backend was asked to run on the CPU."""
        ...

    @property
    def compacts(self) -> bool:
        """Whether missing views are left out, instead of masked (`for_views`)."""
        ...

    def for_views(self, views: int) -> DeviceEngine:
        """The engine for calls in which ``views`` views are there, and come first; itself where
        it masks.
        """
        ...


class OverlapEngine(DeviceEngine, Protocol):
    """A stage that two chunks can be in at once."""

    def beside(self, buffers: Buffers) -> OverlapEngine:
        """The stage once more for every second chunk, before any weights are loaded: what it hands
        on to other stages is its own, and so are host arrays but for those in ``buffers``.
        """
        ...


def bind(
    specs: Iterable[TensorSpec],
    buffers: Buffers,
    make: Callable[[TensorSpec], Array] | None = None,
) -> dict[str, Array]:
    """The arrays of ``specs``, from ``buffers`` or allocated into it by ``make`` (`allocate`).

    BackendError if an array that is there has another shape or dtype, or is not contiguous.
    """
    bound: dict[str, Array] = {}
    for spec in specs:
        array = buffers.get(spec.name)
        if array is None:
            array = buffers[spec.name] = (make or allocate)(spec)
        if array.shape != spec.shape or array.dtype != np.dtype(spec.dtype):
            raise BackendError(
                f'buffer {spec.name!r} is {array.dtype} {list(array.shape)}, the engine wants '
                f'{spec.dtype} {list(spec.shape)}; stages of one chain must agree.'
            )
        if not array.flags.c_contiguous:
            raise BackendError(f'buffer {spec.name!r} is not contiguous; allocate it whole.')
        bound[spec.name] = array
    return bound


def allocate(spec: TensorSpec) -> Array:
    """A zeroed array of ``spec`` that starts on a cache line. BackendError for a dtype that NumPy
    does not have.
    """
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError as error:
        raise BackendError(
            f'{spec.name}: NumPy has no dtype {spec.dtype!r}; on the CPU choose fp32.'
        ) from error
    raw = np.zeros(spec.size * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    flat = raw[start : start + spec.size * dtype.itemsize]
    return flat.view(dtype).reshape(spec.shape)
