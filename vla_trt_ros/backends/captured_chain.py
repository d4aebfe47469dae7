"""A chain of engines on a GPU as one CUDA graph: copies in, every engine, copies out.

Launching one graph costs a few microseconds of the processor where queueing every kernel costs
milliseconds. Events between the stages are part of the graph, so that every launch is timed. What
the first engine does not read is copied in while it runs.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from vla_trt_ros.backends.base import Array
from vla_trt_ros.closing import Closing
from vla_trt_ros.errors import BackendError, NotCapturable
from vla_trt_ros.gpu.cuda import Event, Graph, Stream, capturing, is_pinned
from vla_trt_ros.gpu.mirror import Mirror


class Link(Protocol):
    """What a chain is made of: an engine on a GPU (base.DeviceEngine), or a kernel of ours."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def inputs(self) -> Mapping[str, Array]:
        """Page-locked host arrays of what it reads."""
        ...

    @property
    def outputs(self) -> Mapping[str, Array]:
        """Page-locked host arrays of what it writes."""
        ...

    @property
    def mirrors(self) -> Mapping[str, Mirror]:
        """GPU memory of both."""
        ...

    def enqueue(self, *, stream: int) -> None:
        """Queue one run on ``stream``."""
        ...


Copies = dict[str, tuple[Mirror, Array]]

_log = logging.getLogger(__name__)


class CapturedChain(Closing):
    """``engines`` in their order, run once and captured. The engines must outlive it.

    The caller writes the inputs of the engines and reads their outputs, as with the engines
    themselves. Tensors named in ``on_gpu`` are not copied: the caller writes or reads their
    mirrors on the stream that it launches on. Where an engine cannot be captured, which is logged,
    every launch queues the chain piece by piece instead.

    BackendError if an engine fails, or a host array is not page-locked.
    """

    def __init__(
        self,
        engines: Sequence[Link],
        *,
        on_gpu: Collection[str] = (),
        stream: Stream | None = None,
    ) -> None:
        if not engines:
            raise BackendError('a chain needs one engine at least.')
        self.name = ' -> '.join(e.name for e in engines)
        self._engines = tuple(engines)
        self._own = Stream() if stream is None else None
        self._stream = stream or self._own
        self._launched_on = self.stream.handle
        before, after = host_copies(engines)
        copies = {n: copy for n, copy in before.items() if n not in on_gpu}
        self._before = {n: copy for n, copy in copies.items() if n in engines[0].inputs}
        self._beside = BesideCopies({n: c for n, c in copies.items() if n not in self._before})
        self._after = {n: copy for n, copy in after.items() if n not in on_gpu}
        for name, (_, array) in (*copies.items(), *self._after.items()):
            if not is_pinned(array):
                raise BackendError(
                    f'buffer {name!r} is not page-locked, and a captured copy needs that; let the '
                    'engines allocate it.'
                )
        self._marks = [Event() for _ in range(len(engines) + 3)]
        self._graph = self._capture()

    @property
    def stream(self) -> Stream:
        """Where the chain was captured, and where `run` runs."""
        assert self._stream is not None
        return self._stream

    @property
    def captured(self) -> bool:
        """Whether a launch is one graph."""
        return self._graph is not None

    def _capture(self) -> Graph | None:
        handle = self.stream.handle
        self._queue(handle)  # the first run allocates and compiles, which a capture forbids
        self.stream.wait()
        try:
            with capturing(handle) as graphs:
                self._queue(handle)
        except NotCapturable as error:
            _log.warning('%s is queued piece by piece, which is slower: %s', self.name, error)
            return None
        return graphs[0]

    def _queue(self, stream: int) -> None:
        marks = iter(self._marks)
        next(marks).record_in_graph(stream)
        self._beside.begin(stream)
        for mirror, array in self._before.values():
            mirror.upload(array, stream)
        for number, engine in enumerate(self._engines):
            next(marks).record_in_graph(stream)
            if number == 1:
                self._beside.end(stream)
            engine.enqueue(stream=stream)
        next(marks).record_in_graph(stream)
        for mirror, array in self._after.values():
            mirror.download(array, stream)
        next(marks).record_in_graph(stream)

    def launch(self, stream: int | None = None) -> None:
        """Queue the chain on ``stream`` (its own: None); outputs are valid after `wait`."""
        self._launched_on = self.stream.handle if stream is None else stream
        if self._graph is None:
            self._queue(self._launched_on)
        else:
            self._graph.launch(self._launched_on)

    def wait(self) -> None:
        """Until the last launch is done. BackendError if it failed, DeviceLost if for good."""
        self._marks[-1].wait()

    def run(self) -> None:
        """Run the chain once and wait."""
        self.launch()
        self.wait()

    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of the last launch, which must be done: 'upload' (copies in front of the
        first stage), each stage by its name, 'download'.
        """
        names = ('upload', *(e.name.partition(',')[0] for e in self._engines), 'download')
        spans = pairwise(self._marks)
        return {
            name: end.since(begin, wait=False)
            for name, (begin, end) in zip(names, spans, strict=True)
        }

    def close(self) -> None:
        """Destroy the graph; the engines stay."""
        if self._graph is not None:
            self._graph.close()
        self._beside.close()
        if self._own is not None:
            self._own.close()


class BesideCopies(Closing):
    """``copies`` to the GPU on a stream of their own, beside what is queued between `begin` and
    `end`. Both may be captured.
    """

    def __init__(self, copies: Copies) -> None:
        self._copies = tuple(copies.values())
        self._stream = Stream() if copies else None
        self._begun, self._done = Event(timing=False), Event(timing=False)

    def begin(self, stream: int) -> None:
        """Queue the copies behind what is on ``stream`` by now."""
        if self._stream is None:
            return
        self._begun.record(stream)
        self._begun.hold(self._stream.handle)
        for mirror, array in self._copies:
            mirror.upload(array, self._stream.handle)
        self._done.record(self._stream.handle)

    def end(self, stream: int) -> None:
        """Let ``stream`` go on when they are done."""
        if self._stream is not None:
            self._done.hold(stream)

    def close(self) -> None:
        """Destroy the stream."""
        if self._stream is not None:
            self._stream.close()


def host_copies(engines: Sequence[Link]) -> tuple[Copies, Copies]:
    """What goes to the GPU before ``engines`` run, and what comes back after.

    In: inputs that no engine of the chain wrote before. Out: outputs that none of them reads.
    BackendError for an input that an engine outside the chain writes: it would be read stale.
    """
    before: Copies = {}
    written: set[int] = set()
    held = [(engine, engine.mirrors) for engine in engines]
    for engine, mirrors in held:
        for name, array in engine.inputs.items():
            mirror = mirrors.get(name)
            if mirror is None or mirror.address in written:
                continue
            if mirror.written:
                raise BackendError(
                    f'{engine.name}: {name!r} is written by an engine that is not before it in '
                    'the chain; add that engine, first things first.'
                )
            before[name] = (mirror, array)
        written |= {mirrors[name].address for name in engine.outputs if name in mirrors}
    read = {m[name].address for e, m in held for name in e.inputs if name in m}
    after = {
        name: (mirrors[name], array)
        for engine, mirrors in held
        for name, array in engine.outputs.items()
        if name in mirrors and mirrors[name].address not in read
    }
    return before, after
