"""Bundled networks by torch's operations on a real GPU, alone and captured: equal to the CPU's.

test_onnx_graph.py holds the operations to ONNX Runtime without a GPU.
"""

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[cuda-graph]'")
pytest.importorskip('onnx', reason="needs onnx: pip install '.[cuda-graph]'")

from gpu_there import needs_gpu  # noqa: E402
from test_onnx_graph import BUNDLES, pictures, source_of  # noqa: E402

from vla_trt_ros.backends.captured_chain import CapturedChain  # noqa: E402
from vla_trt_ros.backends.onnx_graph.engine import on_cpu  # noqa: E402
from vla_trt_ros.backends.registry import load_engine  # noqa: E402
from vla_trt_ros.errors import BackendError  # noqa: E402
from vla_trt_ros.gpu import cuda  # noqa: E402

pytestmark = needs_gpu


def close(name, found, wanted):
    """Within what float16's and TF32's other sums make of it."""
    if name == 'sim-objects':
        surely = wanted[0, :, 4] > 0.25
        assert surely.sum() >= 2
        found, wanted = found[0, surely], wanted[0, surely]
    np.testing.assert_allclose(found, wanted, atol=0.5, rtol=1e-2)


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
@pytest.mark.parametrize('name', BUNDLES)
def test_equal_to_the_cpu_alone_and_captured(name, precision):
    source = source_of(name, precision)
    (images,), (output,) = source.inputs, source.outputs
    with on_cpu(source, {}) as reference, load_engine('onnx_graph', source, {}) as engine:
        wanted = []
        for picture in pictures(images.shape[2]):
            reference.inputs[images.name][...] = picture
            reference.enqueue()
            wanted.append(reference.outputs[output.name].copy())
            engine.inputs[images.name][...] = picture
            engine.enqueue()
            close(name, engine.outputs[output.name], wanted[-1])
        with CapturedChain([engine]) as chain:
            assert chain.captured
            for picture, want in zip(pictures(images.shape[2]), wanted, strict=True):
                engine.inputs[images.name][...] = picture
                chain.run()
                close(name, engine.outputs[output.name], want)


def test_two_captured_networks_do_not_share_scratch():
    engines = [load_engine('onnx_graph', source_of(name, 'fp16'), {}) for name in BUNDLES[1:]]
    chains, first = [CapturedChain([e]) for e in engines], []
    for engine, chain in zip(engines, chains, strict=True):
        for array in engine.inputs.values():
            array.fill(0.5)
        chain.run()
        first.append({n: a.copy() for n, a in engine.outputs.items()})
    for _ in range(50):  # on two streams, at once
        for chain in chains:
            chain.launch()
        for chain in chains:
            chain.wait()
    for engine, outputs in zip(engines, first, strict=True):
        for name, array in outputs.items():
            np.testing.assert_array_equal(engine.outputs[name], array)


def test_a_launch_takes_no_memory():
    engine = load_engine('onnx_graph', source_of('sim-objects', 'fp16'), {})
    with CapturedChain([engine]) as chain:
        chain.run()
        before = cuda.memory()[0]
        for _ in range(100):
            chain.run()
        assert cuda.memory()[0] == before


def test_closed():
    engine = load_engine('onnx_graph', source_of('sim-gripper', 'fp16'), {})
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match='is closed'):
        engine.enqueue()
