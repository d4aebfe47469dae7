"""What engines on a GPU share: bound arrays and their mirrors, a run alone, use in a ``with``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

from vla_trt_ros.backends.base import Array
from vla_trt_ros.closing import Closing
from vla_trt_ros.gpu.cuda import Stream
from vla_trt_ros.gpu.mirror import Mirror


class GpuEngine(Closing):
    """Base of a `base.DeviceEngine`, which sets ``name`` and what follows it."""

    name: str
    _inputs: dict[str, Array]
    _outputs: dict[str, Array]
    _mirrors: dict[str, Mirror]

    @property
    def inputs(self) -> Mapping[str, Array]:
        """Page-locked host arrays that the engine reads."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Array]:
        """Page-locked host arrays of what the engine writes. One that another engine reads stays
        on the GPU: its host array is not refreshed.
        """
        return self._outputs

    @property
    def mirrors(self) -> Mapping[str, Mirror]:
        """GPU memory of every input and output."""
        return self._mirrors

    @property
    def on_gpu(self) -> bool:
        """Always, but for a backend that runs on the CPU when it is asked to."""
        return True

    @property
    def compacts(self) -> bool:
        """No: a missing view is masked."""
        return False

    def for_views(self, views: int) -> Self:
        """Itself."""
        del views
        return self

    def _run_alone(self, stream: Stream, queue: Callable[[int], None]) -> None:
        """Copy in what the caller wrote, ``queue`` the engine on ``stream``, copy out what the
        caller reads, and wait.
        """
        mirrors, handle = self.mirrors, stream.handle
        for name, array in self._inputs.items():
            if name in mirrors and not mirrors[name].written:
                mirrors[name].upload(array, handle)
        queue(handle)
        for name, array in self._outputs.items():
            if name in mirrors and not mirrors[name].read:
                mirrors[name].download(array, handle)
        stream.wait()
