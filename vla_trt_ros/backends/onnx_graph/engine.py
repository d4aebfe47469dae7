"""The onnx_graph backend: an ONNX file of a bundle on a GPU, by torch's operations.

For GPUs that no TensorRT engine was built for. Queueing hundreds of small kernels one by one takes
longer than running them, so it is made to be captured (captured_chain.py): the first run allocates
and chooses kernels, a captured one takes its scratch from a pool that only the graph uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vla_trt_ros.backends.base import Array, Buffers, EngineSource, allocate, bind
from vla_trt_ros.backends.gpu_engine import GpuEngine
from vla_trt_ros.backends.onnx_graph.plan import Plan, load_plan
from vla_trt_ros.backends.torch_gpu import as_tensor, explained, gpu_target
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import cuda
from vla_trt_ros.gpu.mirror import mirrors_of

_SMALLER = 'or choose a smaller network'


class OnnxGraphEngine(GpuEngine):
    """One network, its inputs and outputs bound to fixed memory. One thread at a time."""

    def __init__(self, source: EngineSource, buffers: Buffers, device: str = 'cuda') -> None:
        self.name, self._device = source.name, device
        if source.file is None or not source.file.is_file():
            raise BackendError(
                f'{source.name}: {source.file} does not exist; export the bundle again.'
            )
        plan = load_plan(source.file, source.name, source.inputs, source.outputs)
        if device != 'cpu':
            gpu_target()
        self._inputs = bind(source.inputs, buffers, self._allocate)
        self._outputs = bind(source.outputs, buffers, self._allocate)
        self._mirrors = {}
        self._pool: Any = None
        self._stream: cuda.Stream | None = None
        if device != 'cpu':
            self._mirrors = mirrors_of(self._inputs, self._outputs)
        with explained(source.name, _SMALLER):
            if device != 'cpu':
                self._pool = torch.cuda.MemPool()
            self._plan: Plan | None = plan.to(device)
            self._given = self._tensors(self._inputs)
            self._made = self._tensors(self._outputs)

    @property
    def on_gpu(self) -> bool:
        """Unless it was made by `on_cpu`."""
        return self._device != 'cpu'

    def enqueue(self, *, stream: int | None = None) -> None:
        """Copy in, run once, copy out and wait; or queue the network alone on ``stream``."""
        if self._plan is None:
            raise BackendError(f'{self.name}: the engine is closed; load it again.')
        if self._device == 'cpu':
            if stream is not None:
                raise BackendError(f'{self.name}: runs on the CPU, which has no stream {stream}.')
            self._queue(self._plan, None)
        elif stream is not None:
            self._queue(self._plan, stream)
        else:
            if self._stream is None:
                self._stream = cuda.Stream()
            self._run_alone(self._stream, partial(self._queue, self._plan))

    def _queue(self, plan: Plan, stream: int | None) -> None:
        with explained(self.name, _SMALLER), self._work(stream):
            found = plan.run(self._given)
            for to, made in zip(self._made.values(), found, strict=True):
                to.copy_(made)

    @contextlib.contextmanager
    def _work(self, stream: int | None) -> Iterator[None]:
        """What torch does inside the block is queued on ``stream``."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if stream is not None:
                stack.enter_context(torch.cuda.stream(torch.cuda.ExternalStream(stream)))
                if cuda.is_capturing(stream):
                    stack.enter_context(torch.cuda.use_mem_pool(self._pool))
            yield

    def _tensors(self, arrays: Mapping[str, Array]) -> dict[str, Tensor]:
        return {name: as_tensor(array, self._device) for name, array in arrays.items()}

    def _allocate(self, spec: TensorSpec) -> Array:
        if self._device == 'cpu':
            return allocate(spec)
        return cuda.pinned(spec.shape, spec.dtype)

    def close(self) -> None:
        """Refuse further runs and give memory back; a second call does nothing."""
        if self._plan is not None:
            self._plan = self._pool = None
            self._given, self._made, self._mirrors = {}, {}, {}


def on_cpu(source: EngineSource, buffers: Buffers) -> OnnxGraphEngine:
    """The engine without a GPU: for tests, and to look at its operations."""
    return OnnxGraphEngine(source, buffers, 'cpu')
