"""A chain of TensorRT engines as one CUDA graph: copies in, every engine, copies out.

Launching one graph costs a few microseconds of the processor where queueing every kernel costs
milliseconds. Not yet executed on a GPU; see backends/tensorrt.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from vla_trt_ros.backends.base import Array
from vla_trt_ros.backends.tensorrt import TensorRTEngine
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu.cuda import Stream, capturing, is_pinned
from vla_trt_ros.gpu.mirror import Mirror

Copies = dict[str, tuple[Mirror, Array]]


class CapturedChain:
    """``engines`` in their order, captured once. The engines must outlive it.

    The caller writes the inputs of the engines and reads their outputs, as with the engines
    themselves. BackendError if a host array is not page-locked.
    """

    def __init__(self, engines: Sequence[TensorRTEngine]) -> None:
        if not engines:
            raise BackendError('a chain needs one engine at least.')
        self.name = ' -> '.join(e.name for e in engines)
        self._stream = Stream()
        before, after = host_copies(engines)
        for name, (_, array) in (*before.items(), *after.items()):
            if not is_pinned(array):
                raise BackendError(
                    f'buffer {name!r} is not page-locked, and a captured copy needs that; let the '
                    'engines allocate it.'
                )
        for engine in engines:
            engine.enqueue()  # the first run allocates and compiles, which a capture forbids
        handle = self._stream.handle
        with capturing(handle) as graphs:
            for mirror, array in before.values():
                mirror.upload(array, handle)
            for engine in engines:
                engine.enqueue(stream=handle)
            for mirror, array in after.values():
                mirror.download(array, handle)
        (self._graph,) = graphs

    def run(self) -> None:
        """Run the chain once and wait."""
        self._graph.launch(self._stream.handle)
        self._stream.wait()

    def launch(self, stream: int) -> None:
        """Queue the chain on ``stream``; outputs are valid when the stream got there."""
        self._graph.launch(stream)

    def close(self) -> None:
        """Destroy the graph; the engines stay."""
        self._graph.close()
        self._stream.close()

    def __enter__(self) -> CapturedChain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def host_copies(engines: Sequence[TensorRTEngine]) -> tuple[Copies, Copies]:
    """What goes to the GPU before ``engines`` run, and what comes back after.

    In: inputs that no engine of the chain wrote before. Out: outputs that none of them reads.
    BackendError for an input that an engine outside the chain writes: it would be read stale.
    """
    before: Copies = {}
    written: set[int] = set()
    for engine in engines:
        for name, array in engine.inputs.items():
            mirror = engine.mirrors[name]
            if mirror.address in written:
                continue
            if mirror.written:
                raise BackendError(
                    f'{engine.name}: {name!r} is written by an engine that is not before it in '
                    'the chain; add that engine, first things first.'
                )
            before[name] = (mirror, array)
        written |= {engine.mirrors[name].address for name in engine.outputs}
    read = {e.mirrors[name].address for e in engines for name in e.inputs}
    after = {
        name: (engine.mirrors[name], array)
        for engine in engines
        for name, array in engine.outputs.items()
        if engine.mirrors[name].address not in read
    }
    return before, after
