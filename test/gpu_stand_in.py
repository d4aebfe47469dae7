"""A GPU that lives in host memory, for the logic around a real one.

`Cuda` has the calls of cuda-python's runtime that gpu/cuda.py makes; "device" memory is memory, a
captured stream records what is queued on it, and a graph plays it back. Everything else runs when
it is queued: `LazyCuda` is the GPU that runs as late as it may.
"""
# ruff: noqa: N802, N815  the names are cuda-python's

import ctypes
import itertools
import random
from types import SimpleNamespace


class Status(int):
    """cudaError_t: an integer with a name."""

    name = 'cudaSuccess'


class Failure(Status):
    name = 'cudaErrorMemoryAllocation'


class Lost(Status):
    name = 'cudaErrorIllegalAddress'


OK = Status(0)


class Cuda:
    """cuda.bindings.runtime, as far as it is used. ``fail`` names a call that fails."""

    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaHostAllocMapped = 2
    cudaEventBlockingSync = 1
    cudaEventDisableTiming = 2
    cudaEventRecordExternal = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaMemoryType = SimpleNamespace(cudaMemoryTypeHost=1)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaDeviceAttr = SimpleNamespace(
        cudaDevAttrComputeCapabilityMajor='major',
        cudaDevAttrComputeCapabilityMinor='minor',
        cudaDevAttrIntegrated='integrated',
    )

    def __init__(self, target='sm_120', integrated=False):
        self.target = target
        self.integrated = integrated
        self.fail = ''
        self.failure = Failure(2)
        self.free = 40 << 30
        self.log = []
        self.capture = None
        self.priorities = {}
        self._handles = itertools.count(100)
        self._memory = {}
        self._pinned = set()
        self._graphs = {}

    def queue(self, name, action):
        """Do it, or keep it for a graph."""
        self.log.append(name)
        if self.capture is None:
            action()
        else:
            self.capture.append((name, action))

    def _allocate(self, count):
        block = (ctypes.c_uint8 * count)()
        address = ctypes.addressof(block)
        self._memory[address] = block
        return address

    def cudaGetErrorString(self, status):
        return OK, b'out of memory' if status else b'no error'

    def cudaDeviceGetAttribute(self, which, index):
        if which == 'integrated':
            return OK, int(self.integrated)
        number = int(self.target.removeprefix('sm_'))
        return OK, number // 10 if which == 'major' else number % 10

    def cudaStreamCreateWithFlags(self, flags):
        return OK, next(self._handles)

    def cudaDeviceGetStreamPriorityRange(self):
        return OK, 0, -5

    def cudaStreamCreateWithPriority(self, flags, priority):
        handle = next(self._handles)
        self.priorities[handle] = priority
        return OK, handle

    def cudaStreamDestroy(self, handle):
        return (OK,)

    def cudaStreamSynchronize(self, handle):
        if handle:  # not the default stream, which only clears memory
            self.log.append('wait')
        return (OK,)

    def cudaMalloc(self, count):
        if self.fail == 'cudaMalloc':
            return self.failure, None
        return OK, self._allocate(count)

    def cudaFree(self, address):
        self._memory.pop(address, None)
        return (OK,)

    def cudaMemset(self, address, value, count):
        ctypes.memset(address, value, count)
        return (OK,)

    def cudaMemsetAsync(self, address, value, count, stream):
        self.queue('clear', lambda: ctypes.memset(address, value, count))
        return (OK,)

    def cudaHostAlloc(self, count, flags):
        address = self._allocate(count)
        self._pinned.add(address)
        return OK, address

    def cudaHostGetDevicePointer(self, address, flags):
        return OK, address

    def cudaFreeHost(self, address):
        self._memory.pop(address, None)
        return (OK,)

    def cudaPointerGetAttributes(self, address):
        return OK, SimpleNamespace(type=1 if address in self._pinned else 0)

    def cudaMemcpyAsync(self, to, source, count, kind, stream):
        name = {1: 'upload', 2: 'download'}[kind]
        self.queue(name, lambda: ctypes.memmove(to, source, count))
        return (OK,)

    def cudaSetDevice(self, index):
        return (OK,)

    def cudaMemGetInfo(self):
        return OK, self.free, 80 << 30

    def cudaEventCreateWithFlags(self, flags):
        return OK, next(self._handles)

    def cudaEventRecord(self, event, stream):
        return (OK,)

    def cudaStreamWaitEvent(self, stream, event, flags):
        return (OK,)

    def cudaEventDestroy(self, event):
        return (OK,)

    def cudaEventRecordWithFlags(self, event, stream, flags):
        assert flags == (self.capture is not None)  # CUDA refuses it otherwise
        return (OK,)

    def cudaEventSynchronize(self, event):
        self.log.append('wait')
        return (OK,)

    def cudaEventElapsedTime(self, begin, end):
        return OK, 0.5

    def cudaStreamIsCapturing(self, stream):
        return OK, int(self.capture is not None)

    def cudaStreamBeginCapture(self, stream, mode):
        self.capture = []
        return (OK,)

    def cudaStreamEndCapture(self, stream):
        captured, self.capture = self.capture, None
        return OK, captured

    def cudaGraphInstantiate(self, captured, flags):
        return OK, captured

    def cudaGraphDestroy(self, captured):
        return (OK,)

    def cudaGraphExecDestroy(self, graph):
        return (OK,)

    def cudaGraphLaunch(self, graph, stream):
        self.log.append('graph')
        for _, action in graph:
            action()
        return (OK,)


class LazyCuda(Cuda):
    """Nothing that is queued runs before somebody waits for it: a forgotten wait shows as wrong
    bytes. Streams are queues; an event is a place in one.
    """

    def __init__(self, **facts):
        super().__init__(**facts)
        self._queues = {}
        self._events = {}
        self.allocations = 0

    def _allocate(self, count):
        self.allocations += 1
        return super()._allocate(count)

    def put(self, stream, action):
        """Queue ``action`` on ``stream``, or keep it for a graph."""
        if self.capture is not None:
            self.capture.append(action)
        else:
            self._queues.setdefault(stream, []).append(action)

    def waiting(self, stream):
        """How many actions a stream holds."""
        return len(self._queues.get(stream, []))

    def run(self, stream, upto=None):
        """Run a stream's queue, or its first ``upto`` entries."""
        queue = self._queues.get(stream, [])
        count = len(queue) if upto is None else upto
        for _ in range(count):
            queue.pop(0)()

    def cudaMemcpyAsync(self, to, source, count, kind, stream):
        self.log.append('upload' if kind == 1 else 'download')
        self.put(stream, lambda: ctypes.memmove(to, source, count))
        return (OK,)

    def cudaMemsetAsync(self, address, value, count, stream):
        self.put(stream, lambda: ctypes.memset(address, value, count))
        return (OK,)

    def cudaGraphLaunch(self, graph, stream):
        self.log.append('graph')
        for action in graph:
            self.put(stream, action)
        return (OK,)

    def cudaStreamSynchronize(self, stream):
        self.run(stream)
        return (OK,)

    def cudaEventCreateWithFlags(self, flags):
        self.allocations += 1
        handle = next(self._handles)
        self._events[handle] = None
        return OK, handle

    def cudaEventDestroy(self, event):
        return (OK,)

    def cudaEventRecord(self, event, stream):
        mark = SimpleNamespace(stream=stream, done=False)
        self._events[event] = mark
        self.put(stream, lambda: setattr(mark, 'done', True))
        return (OK,)

    def _reach(self, mark):
        while mark is not None and not mark.done:
            self.run(mark.stream, 1)

    def cudaEventSynchronize(self, event):
        self.log.append('wait')
        if self.fail == 'cudaEventSynchronize':
            return (self.failure,)
        self._reach(self._events[event])
        return (OK,)

    def cudaStreamWaitEvent(self, stream, event, flags):
        mark = self._events[event]
        self.put(stream, lambda: self._reach(mark))
        return (OK,)


class RacingCuda(Cuda):
    """Streams that race: nothing runs before somebody waits, then entries of all streams run in an
    order drawn from ``seed``, as far as events allow. An order that is not enforced shows as wrong
    numbers at some seed. ``ran`` names the copies and engines in the order in which they ran.
    """

    def __init__(self, seed, **facts):
        super().__init__(**facts)
        self._random = random.Random(seed)
        self.ran = []
        self._last = self._origin = None
        self._forked = set()
        self._queues = {}
        self._events = {}

    def cudaFree(self, address):
        return (OK,)  # CUDA waits for all that runs; here memory stays

    cudaFreeHost = cudaFree

    def put(self, stream, action, until=None):
        """Queue ``action``, to run when the mark ``until`` is done."""
        self._queues.setdefault(stream, []).append((action, until))

    def step(self):
        """Run one entry of any stream that can go on; False if there is none."""
        heads = {s: q[0][1] for s, q in self._queues.items() if q}
        ready = [s for s, until in heads.items() if until is None or until.done]
        assert ready or not heads, 'streams wait for each other'
        if ready:
            # A stream that runs goes on for a while: only so does one get far ahead of another.
            if self._last not in ready or self._random.random() < 0.15:
                self._last = self._random.choice(ready)
            action, _ = self._queues[self._last].pop(0)
            action()
        return bool(ready)

    def go_on(self):
        """Run for a time that the seed says."""
        for _ in range(self._random.randrange(120)):
            self.step()

    def queue(self, name, action, stream=None):
        self.log.append(name)

        def run():
            self.ran.append(name)
            action()

        if self.capture is not None:
            self._keep(stream or self._origin, run)
        elif stream is None:
            run()
        else:
            self.put(stream, run)

    def _keep(self, stream, action, recorded=None, held=None):
        assert stream in self._forked, 'CUDA refuses work of a stream that is not captured'
        self.capture.append((stream, action, recorded, held))

    def cudaMemcpyAsync(self, to, source, count, kind, stream):
        name = {1: 'upload', 2: 'download'}[kind]
        self.queue(name, lambda: ctypes.memmove(to, source, count), stream)
        return (OK,)

    def cudaStreamBeginCapture(self, stream, mode):
        self._origin, self._forked = stream, {stream}
        return super().cudaStreamBeginCapture(stream, mode)

    def cudaStreamEndCapture(self, stream):
        graph = self.capture
        _, captured = super().cudaStreamEndCapture(stream)
        forks = {entry[0] for entry in graph} - {stream}
        for fork in forks:
            *_, (last, event) = [(i, e[2]) for i, e in enumerate(graph) if e[0] == fork]
            joins = ((e[0], e[3]) == (stream, event) for e in graph[last:] if event)
            assert any(joins), 'a forked stream was not joined'
        return OK, (stream, captured)

    def cudaGraphLaunch(self, graph, stream):
        """Streams that the capture forked into race here too, each launch with queues anew."""
        self.log.append('graph')
        origin, entries = graph
        launch, marks = object(), {}
        for where, action, recorded, held in entries:
            queue = stream if where == origin else (where, launch)
            self.put(queue, action, marks.get(held))
            if recorded is not None:
                mark = marks[recorded] = self._events[recorded] = SimpleNamespace(done=False)
                self.put(queue, lambda mark=mark: setattr(mark, 'done', True))
        return (OK,)

    def cudaEventRecord(self, event, stream):
        if self.capture is not None:
            self._keep(stream, lambda: None, recorded=event)
            return (OK,)
        mark = self._events[event] = SimpleNamespace(done=False)
        self.put(stream, lambda: setattr(mark, 'done', True))
        return (OK,)

    def cudaEventRecordWithFlags(self, event, stream, flags):
        super().cudaEventRecordWithFlags(event, stream, flags)
        return self.cudaEventRecord(event, stream)

    def cudaStreamWaitEvent(self, stream, event, flags):
        if self.capture is not None:
            assert event in {entry[2] for entry in self.capture}, 'CUDA refuses other events'
            self._forked.add(stream)
            self._keep(stream, lambda: None, held=event)
            return (OK,)
        self.put(stream, lambda: None, self._events.get(event))
        return (OK,)

    def cudaStreamSynchronize(self, stream):
        while self._queues.get(stream):
            self.step()
        return (OK,)

    def cudaEventSynchronize(self, event):
        mark = self._events.get(event)
        while mark is not None and not mark.done:
            self.step()
        return (OK,)
