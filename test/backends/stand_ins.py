"""A GPU and a TensorRT that live in host memory, for the logic around the real ones.

`Cuda` has the calls of cuda-python's runtime that gpu/cuda.py makes; "device" memory is memory, a
captured stream records what is queued on it, and a graph plays it back. `module()` is a TensorRT
whose engines add up their inputs. None of it shows that a real engine runs.
"""
# ruff: noqa: N802, N815  the names are cuda-python's

import ctypes
import itertools
import json
from types import SimpleNamespace

import numpy as np


class Status(int):
    """cudaError_t: an integer with a name."""

    name = 'cudaSuccess'


class Failure(Status):
    name = 'cudaErrorMemoryAllocation'


OK = Status(0)


class Cuda:
    """cuda.bindings.runtime, as far as it is used. ``fail`` names a call that fails."""

    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaMemoryType = SimpleNamespace(cudaMemoryTypeHost=1)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaDeviceAttr = SimpleNamespace(
        cudaDevAttrComputeCapabilityMajor='major', cudaDevAttrComputeCapabilityMinor='minor'
    )

    def __init__(self, target='sm_120'):
        self.target = target
        self.fail = ''
        self.log = []
        self.capture = None
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
        number = int(self.target.removeprefix('sm_'))
        return OK, number // 10 if which == 'major' else number % 10

    def cudaStreamCreateWithFlags(self, flags):
        return OK, next(self._handles)

    def cudaStreamDestroy(self, handle):
        return (OK,)

    def cudaStreamSynchronize(self, handle):
        self.log.append('wait')
        return (OK,)

    def cudaMalloc(self, count):
        if self.fail == 'cudaMalloc':
            return Failure(2), None
        return OK, self._allocate(count)

    def cudaFree(self, address):
        self._memory.pop(address, None)
        return (OK,)

    def cudaMemset(self, address, value, count):
        ctypes.memset(address, value, count)
        return (OK,)

    def cudaHostAlloc(self, count, flags):
        address = self._allocate(count)
        self._pinned.add(address)
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


def module(cuda, version='10.13.3.9', runtime_cache=False):
    """A TensorRT module. Its plans are JSON: {'inputs': {name: [shape, dtype]}, 'outputs': ...};
    an engine writes into every output the sum of its inputs, plus 1.
    """
    bytes_of = {'FLOAT': 'float32', 'INT64': 'int64', 'BOOL': 'bool', 'BF16': 'bfloat16'}

    class Severity:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    class ILogger:
        def __init__(self):
            pass

    ILogger.Severity = Severity

    class Context:
        def __init__(self, engine):
            self.engine = engine
            self.addresses = {}
            self.fail = False

        def set_tensor_address(self, name, address):
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream):
            cuda.queue('engine', self._run)
            return not self.fail

        def _array(self, name):
            shape, dtype = self.engine.tensors[name]
            kind = np.dtype(bytes_of[dtype])
            raw = (ctypes.c_uint8 * (int(np.prod(shape)) * kind.itemsize)).from_address(
                self.addresses[name]
            )
            return np.frombuffer(raw, kind).reshape(shape)

        def _run(self):
            total = 1 + sum(float(self._array(n).sum()) for n in self.engine.plan['inputs'])
            for name in self.engine.plan['outputs']:
                self._array(name)[...] = total

    class Engine:
        def __init__(self, plan):
            self.plan = plan
            self.tensors = {**plan['inputs'], **plan['outputs']}
            self.num_io_tensors = len(self.tensors)

        def get_tensor_name(self, i):
            return list(self.tensors)[i]

        def get_tensor_mode(self, name):
            return 'in' if name in self.plan['inputs'] else 'out'

        def get_tensor_dtype(self, name):
            return SimpleNamespace(name=self.tensors[name][1])

        def get_tensor_shape(self, name):
            return self.tensors[name][0]

        def create_runtime_config(self):
            if not runtime_cache:
                return SimpleNamespace()
            cache = SimpleNamespace(
                deserialize=lambda data: cuda.log.append(f'cache read {len(data)}'),
                serialize=lambda: b'kernels',
            )
            return SimpleNamespace(
                create_runtime_cache=lambda: cache, set_runtime_cache=lambda found: None
            )

        def create_execution_context(self, config=None):
            return None if self.plan.get('no context') else Context(self)

    class Runtime:
        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, plan):
            try:
                return Engine(json.loads(bytes(plan)))
            except ValueError:
                self.logger.log(Severity.ERROR, 'Serialization assertion magicTag failed.')
                return None

    return SimpleNamespace(
        __version__=version,
        ILogger=ILogger,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT='in'),
    )
