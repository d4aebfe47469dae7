"""A TensorRT that lives in host memory, for the logic around the real one.

`module()` is a TensorRT whose engines add up their inputs, on the GPU of gpu_stand_in.py. None of
it shows that a real engine runs.
"""

import ctypes
import json
from types import SimpleNamespace

import numpy as np


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
