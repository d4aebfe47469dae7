"""CUDA through cuda-python on a real GPU: memory, copies, streams, events, a captured chain.

The engines of the chain are TensorRT's only in shape: what they queue is a copy from one tensor to
the next, on the stream that the backend gives them.
"""

import gc
import sys

import numpy as np
import pytest

pytest.importorskip('ml_dtypes', reason="the robot's GPU extra: pip install '.[tensorrt]'")

from gpu_there import has_gpu, needs_gpu

from vla_trt_ros.backends.captured_chain import CapturedChain
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import cuda
from vla_trt_ros.gpu.mirror import mirror_of


class Copying:
    """An engine that copies its first input to its output on the GPU."""

    def __init__(self, name, given, made):
        self.name, self.inputs, self.outputs = name, given, made
        self.mirrors = {n: mirror_of(a) for n, a in (given | made).items()}
        for n, mirror in self.mirrors.items():
            mirror.read |= n in given
            mirror.written |= n in made
        self.own = cuda.Stream()

    def enqueue(self, *, stream=None):
        (source, *_), (to,) = self.inputs, self.outputs
        cudart = cuda.runtime()
        cuda.check(
            cudart.cudaMemcpyAsync(
                self.mirrors[to].address,
                self.mirrors[source].address,
                self.outputs[to].nbytes,
                cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice,
                self.own.handle if stream is None else stream,
            ),
            'copying',
        )
        if stream is None:
            self.own.wait()


class TestOnGpu:
    pytestmark = needs_gpu

    def test_there_and_back(self):
        stream = cuda.Stream()
        array = cuda.pinned((3, 5), np.float32)
        assert array.shape == (3, 5)
        assert not array.any()
        array[...] = np.arange(15).reshape(3, 5)
        mirror = mirror_of(array)
        mirror.upload(array, stream.handle)
        stream.wait()
        array[...] = -1
        mirror.download(array, stream.handle)
        stream.wait()
        assert array.tolist() == np.arange(15).reshape(3, 5).tolist()
        stream.close()
        stream.close()

    def test_memory_is_zeroed(self):
        stream, array = cuda.Stream(), cuda.pinned((1 << 20,), np.uint8)
        array.fill(9)
        buffer = cuda.DeviceBuffer(array.nbytes)
        cuda.download(array, buffer.address, stream.handle)
        stream.wait()
        assert not array.any()

    def test_what_is_pinned(self):
        assert cuda.is_pinned(cuda.pinned((4,), np.float32))
        assert not cuda.is_pinned(np.zeros(4, np.float32))

    def test_a_mirror_goes_with_its_array(self):
        array = cuda.pinned((1 << 28,), np.uint8)
        assert mirror_of(array) is mirror_of(array[:]) is mirror_of(array)
        before = free()
        del array
        gc.collect()
        assert free() - before >= 1 << 28

    def test_a_full_gpu_is_told(self):
        with pytest.raises(BackendError, match='cudaErrorMemoryAllocation.*The GPU is full'):
            cuda.DeviceBuffer(1 << 50)

    def test_events_time_a_copy(self):
        stream, array = cuda.Stream(), cuda.pinned((1 << 28,), np.uint8)
        begin, end = cuda.Event(), cuda.Event()
        begin.record(stream.handle)
        mirror_of(array).upload(array, stream.handle)
        end.record(stream.handle)
        assert 0.5 < end.since(begin) < 5000

    def test_captured_chain(self):
        def array(name, fill):
            made = cuda.pinned((1, 1000), np.float32)
            made.fill(fill)
            return {name: made}

        pixels, keys, actions = array('pixels', 1), array('keys', 0), array('actions', 0)
        engines = [Copying('prefix', pixels, keys), Copying('denoise', keys, actions)]
        with CapturedChain(engines) as chain:
            assert (actions['actions'] == 1).all()  # it ran once, before it was captured
            for value in (2.0, -3.0):
                pixels['pixels'].fill(value)
                chain.run()
                assert (actions['actions'] == value).all()
            assert not keys['keys'].any()  # stays on the GPU
            stream = cuda.Stream()
            pixels['pixels'].fill(7)
            chain.launch(stream.handle)
            stream.wait()
            assert (actions['actions'] == 7).all()

    def test_a_capture_that_fails_is_ended(self):
        stream = cuda.Stream()

        def fails():
            with cuda.capturing(stream.handle):
                raise KeyError('the first error')

        with pytest.raises(KeyError, match='the first error'):
            fails()
        array = cuda.pinned((8,), np.float32)
        mirror_of(array).upload(array, stream.handle)  # the stream works as before
        stream.wait()


def free():
    return int(cuda.check(cuda.runtime().cudaMemGetInfo(), 'asking for memory')[0])


def test_no_gpu_and_no_driver():
    pytest.importorskip('cuda.bindings', reason="the robot's GPU extra: pip install '.[tensorrt]'")
    if has_gpu():
        pytest.skip('there is a GPU here')
    message = 'There is no NVIDIA GPU or driver here: choose platform cpu'
    with pytest.raises(BackendError, match=f'asking the GPU what it is: CUDA says .*{message}'):
        cuda.device_target()
    with pytest.raises(BackendError, match=message):
        cuda.DeviceBuffer(8)


def test_cuda_python_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cuda.bindings', None)
    cuda.runtime.cache_clear()
    try:
        with pytest.raises(BackendError, match=r'needs cuda-python .*vla_trt_ros\[tensorrt\]'):
            cuda.runtime()
    finally:
        cuda.runtime.cache_clear()


def test_values_of_a_call():
    assert cuda.check((0,), 'x') == ()
    assert cuda.check((0, 5), 'x') == 5
    assert cuda.check((0, 5, 6), 'x') == (5, 6)
    with pytest.raises(BackendError, match='doing x: CUDA says 999, '):
        cuda.check((999, None), 'doing x')
