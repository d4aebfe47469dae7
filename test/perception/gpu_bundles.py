"""Engines on the GPU of gpu_stand_in.py that are a function of the test."""

import ctypes

import numpy as np

from vla_trt_ros.gpu.cuda import pinned
from vla_trt_ros.gpu.mirror import mirror_of


def at(address, shape):
    """float32 memory of the GPU that is the host's."""
    count = int(np.prod(shape))
    return np.frombuffer((ctypes.c_float * count).from_address(address), np.float32).reshape(shape)


class GpuEngine:
    """Writes ``run(images)`` into the output when its stream gets there."""

    on_gpu = True

    def __init__(self, source, buffers, run, gpu):
        self.name, self._run, self._gpu, self.closed = source.name, run, gpu, False
        self.inputs, self.outputs, self.mirrors = {}, {}, {}
        for specs, arrays in ((source.inputs, self.inputs), (source.outputs, self.outputs)):
            for spec in specs:
                array = buffers[spec.name] = arrays[spec.name] = pinned(spec.shape, np.float32)
                self.mirrors[spec.name] = mirror_of(array)
        self._given, self._made = list(self.mirrors.values())
        self._given.read = self._made.written = True

    def enqueue(self, *, stream=None):
        assert not self.closed
        ((images,), (output,)) = self.inputs.values(), self.outputs.values()
        if stream is None:
            output[...] = self._run(images)
        else:
            self._gpu.log.append('engine')
            self._gpu.put(stream, lambda: self._on_gpu(images.shape, output.shape))

    def _on_gpu(self, given, made):
        at(self._made.address, made)[...] = self._run(at(self._given.address, given))

    def close(self):
        self.closed = True


def engines(monkeypatch, gpu, runs):
    """Engines that are loaded from now on run, on ``gpu``, what ``runs`` has for a word of their
    name; they are listed.
    """
    made = []

    def load(backend, source, buffers):
        (run,) = [run for word, run in runs.items() if word in source.name]
        made.append(GpuEngine(source, buffers, run, gpu))
        return made[-1]

    monkeypatch.setattr('vla_trt_ros.perception.engine.load_engine', load)
    return made
