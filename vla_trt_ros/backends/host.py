"""What engines on the CPU share: bound arrays, refusal after close, use in a ``with``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from vla_trt_ros.backends.base import Array, Buffers, EngineSource, bind
from vla_trt_ros.closing import Closing
from vla_trt_ros.errors import BackendError


class HostEngine(Closing):
    """Base of an engine whose buffers are NumPy arrays."""

    def __init__(self, source: EngineSource, buffers: Buffers) -> None:
        self.name = source.name
        self._inputs = bind(source.inputs, buffers)
        self._outputs = bind(source.outputs, buffers)
        self._closed = False

    @property
    def inputs(self) -> Mapping[str, Array]:
        """Arrays that the engine reads."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Array]:
        """Arrays that the engine writes."""
        return self._outputs

    def enqueue(self, *, stream: int | None = None) -> None:
        """Run once and wait. There are no streams on the CPU: ``stream`` must be None."""
        if self._closed:
            raise BackendError(f'{self.name}: the engine is closed; load it again.')
        if stream is not None:
            raise BackendError(f'{self.name}: runs on the CPU, which has no stream {stream}.')
        self._run()

    @abstractmethod
    def _run(self) -> None:
        """Inputs to outputs."""

    def close(self) -> None:
        """Refuse further runs."""
        self._closed = True
