"""The onnx_graph engine around its operations: memory, streams, pool and errors, on a GPU that
lives in host memory. torch itself stays on the CPU: what it queues runs at once.
"""

import contextlib
import ctypes

import numpy as np
import pytest
from gpu_stand_in import Cuda, Lost

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
pytest.importorskip('onnx', reason="needs onnx: pip install '.[export]'")

from test_onnx_graph import source_of  # noqa: E402

from vla_trt_ros.backends import torch_gpu  # noqa: E402
from vla_trt_ros.backends.captured_chain import CapturedChain  # noqa: E402
from vla_trt_ros.backends.onnx_graph import engine as module  # noqa: E402
from vla_trt_ros.backends.registry import load_engine  # noqa: E402
from vla_trt_ros.errors import BackendError, DeviceLost  # noqa: E402
from vla_trt_ros.gpu import cuda  # noqa: E402
from vla_trt_ros.gpu.mirror import mirror_of  # noqa: E402


@pytest.fixture
def gpu(monkeypatch):
    made = Cuda(target='sm_90')
    monkeypatch.setattr(cuda, 'runtime', lambda: made)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'MemPool', lambda: 'pool')

    @contextlib.contextmanager
    def noted(what):
        made.log.append(what)
        yield

    monkeypatch.setattr(torch.cuda, 'use_mem_pool', noted)
    monkeypatch.setattr(torch.cuda, 'ExternalStream', lambda handle: f'on {handle}')
    monkeypatch.setattr(torch.cuda, 'stream', noted)
    monkeypatch.setattr(module, 'as_tensor', in_place)
    monkeypatch.setattr(module.Plan, 'to', lambda plan, device: plan)
    return made


def in_place(array, device):
    """The GPU's memory of ``array``, which is the host's."""
    assert device == 'cuda'
    raw = (ctypes.c_uint8 * array.nbytes).from_address(mirror_of(array).address)
    return torch.frombuffer(raw, dtype=torch.float32).reshape(array.shape)


@pytest.fixture
def source():
    return source_of('sim-gripper', 'fp32')


def test_alone_it_copies_in_runs_copies_out_and_waits(gpu, source):
    engine = load_engine('onnx_graph', source, {})
    reference = load_engine('onnxruntime', source, {})
    picture = np.random.default_rng(0).random(source.inputs[0].shape, np.float32)
    for one in (engine, reference):
        one.inputs['images'][...] = picture
    gpu.log.clear()
    engine.enqueue()
    reference.enqueue()
    kinds = [entry.partition(' ')[0] for entry in gpu.log]
    assert kinds == ['upload', 'on', 'download', 'wait']
    (name,) = engine.outputs
    np.testing.assert_allclose(engine.outputs[name], reference.outputs[name], atol=1e-5)
    assert engine.on_gpu
    assert engine.for_views(1) is engine
    assert not engine.compacts
    assert all(cuda.is_pinned(a) for a in (*engine.inputs.values(), *engine.outputs.values()))


def test_on_a_stream_it_only_queues_and_a_capture_has_its_own_pool(gpu, source):
    engine = load_engine('onnx_graph', source, {})
    gpu.log.clear()
    engine.enqueue(stream=7)
    assert gpu.log == ['on 7']
    gpu.log.clear()
    with CapturedChain([engine], on_gpu={'images'}) as chain:
        assert chain.captured
        stream = chain.stream.handle
        queued = [f'on {stream}', 'download']
        assert [e for e in gpu.log if e != 'wait'] == [*queued, f'on {stream}', 'pool', 'download']


def test_a_full_gpu_is_told_with_what_helps(gpu, source, monkeypatch):
    def full(*rest):
        raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(module.Plan, 'to', full)
    with pytest.raises(BackendError, match='sim-gripper: the GPU is full.*a smaller network'):
        load_engine('onnx_graph', source, {})


def test_a_lost_device(gpu, source, monkeypatch):
    engine = load_engine('onnx_graph', source, {})

    def lost(*rest):
        raise RuntimeError('CUDA error: an illegal memory access was encountered\nmore')

    monkeypatch.setattr(module.Plan, 'run', lost)
    monkeypatch.setattr(gpu, 'cudaDeviceSynchronize', lambda: (Lost(700),), raising=False)
    with pytest.raises(DeviceLost, match='restart the node'):
        engine.enqueue(stream=7)
    monkeypatch.setattr(gpu, 'cudaDeviceSynchronize', lambda: (0,))
    with pytest.raises(BackendError, match='sim-gripper: CUDA error: an illegal memory access'):
        engine.enqueue(stream=7)


def test_torch_without_cuda(gpu, source, monkeypatch):
    monkeypatch.setattr(torch_gpu.torch.cuda, 'is_available', lambda: False)
    with pytest.raises(BackendError, match=r'torch .* cannot use the GPU .*\[cuda-graph\]'):
        load_engine('onnx_graph', source, {})


def test_closed(gpu, source):
    engine = load_engine('onnx_graph', source, {})
    with engine:
        pass
    engine.close()
    with pytest.raises(BackendError, match='is closed; load it again'):
        engine.enqueue(stream=7)
