"""What every backend promises (backends/base.py), on the stages of the nano bundle.

A new backend is one line in the registry; this file then holds it to the protocol.
"""

import sys
from dataclasses import replace

import numpy as np
import pytest

from vla_trt_ros.backends.base import EngineSource
from vla_trt_ros.backends.registry import BACKENDS, load_engine
from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import share_dir
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BackendError

# tensorrt needs a GPU and an engine for it: test_tensorrt_*.py hold what can be held without.
AVAILABLE = tuple(name for name in BACKENDS if name != 'tensorrt')
STAGES = ('vision', 'prefix', 'denoise')


@pytest.fixture(scope='module')
def sources():
    bundle = open_bundle(share_dir() / 'bundles' / 'nano')
    found = {}
    short = min(e.prompt_bucket for e in bundle.manifest.engines if e.prompt_bucket)
    for entry in bundle.manifest.engines:
        if entry.precision == 'fp32' and (entry.prompt_bucket, entry.num_steps) in (
            (None, None),
            (short, None),
            (short, 2),
        ):
            found[entry.stage] = EngineSource(
                entry.stage, bundle.file(entry.file), entry.inputs, entry.outputs
            )
    return found


@pytest.fixture(scope='module')
def fast_sources(tmp_path_factory):
    """The same stages, random weights, for cuda_graph."""
    torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
    from vla_trt_ros.export.pi05.fast import fast_engines
    from vla_trt_ros.export.pi05.random_weights import random_model
    from vla_trt_ros.policies.pi05.cuda.fast_file import write_fast_file
    from vla_trt_ros.policies.pi05.cuda.fold import fold
    from vla_trt_ros.policies.pi05.cuda.tables import step_tables
    from vla_trt_ros.policies.pi05.spec import NANO

    load = dict(random_model(NANO, 0).named_parameters()).__getitem__
    weights = fold(NANO, load, torch.float32)
    path = tmp_path_factory.mktemp('fast') / 'fast.fp32.safetensors'
    tables = {n: step_tables(weights, load, n) for n in NANO.num_steps}
    write_fast_file(path, weights, tables, 'fp32')
    return {
        e.stage: EngineSource(
            e.stage, path, e.inputs, e.outputs, 'fp32', 1, e.stage, e.prompt_bucket, e.num_steps
        )
        for e in reversed(fast_engines(NANO, 'fp32'))
        if e.prompt_bucket in (None, 24) and e.num_steps in (None, 2)
    }


@pytest.fixture(params=[(b, s) for b in AVAILABLE for s in STAGES], ids='-'.join)
def case(request, sources, monkeypatch):
    backend, stage = request.param
    if backend == 'cuda_graph':
        sources = request.getfixturevalue('fast_sources')
        monkeypatch.setitem(BACKENDS, backend, 'vla_trt_ros.policies.pi05.cuda.engine:on_cpu')
        # A policy's engines share what they load; here each has its own.
        return backend, replace(sources[stage], shared={})
    if backend == 'onnx_graph':  # no policy runs on it, but what a policy's graphs need it has
        pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
        monkeypatch.setitem(BACKENDS, backend, 'vla_trt_ros.backends.onnx_graph.engine:on_cpu')
    return backend, sources[stage]


def fill(inputs, seed=0):
    generator = np.random.default_rng(seed)
    for name, array in inputs.items():
        if array.dtype == bool:
            array[...] = True
        elif array.dtype == np.int64:
            array[...] = generator.integers(0, 700, array.shape)
        else:
            array[...] = generator.uniform(-1, 1, array.shape)
        assert array.any(), name


def addresses(engine):
    return {n: a.ctypes.data for n, a in (*engine.inputs.items(), *engine.outputs.items())}


def test_tensors_are_those_asked_for(case):
    backend, source = case
    with load_engine(backend, source, {}) as engine:
        for specs, arrays in ((source.inputs, engine.inputs), (source.outputs, engine.outputs)):
            assert list(arrays) == [s.name for s in specs]
            for spec in specs:
                assert arrays[spec.name].shape == spec.shape
                assert arrays[spec.name].dtype == np.dtype(spec.dtype)
                assert arrays[spec.name].ctypes.data % 64 == 0


def test_runs_into_fixed_addresses(case):
    backend, source = case
    with load_engine(backend, source, {}) as engine:
        before = addresses(engine)
        fill(engine.inputs)
        engine.enqueue()
        first = {name: array.copy() for name, array in engine.outputs.items()}
        for name, array in first.items():
            assert np.isfinite(array).all()
            assert np.count_nonzero(array) > 0.99 * array.size, name
        for array in engine.outputs.values():
            array.fill(7.0)
        engine.enqueue()
        assert addresses(engine) == before
        for name, array in engine.outputs.items():
            np.testing.assert_array_equal(array, first[name])


def test_inputs_are_left_alone(case):
    backend, source = case
    with load_engine(backend, source, {}) as engine:
        fill(engine.inputs)
        before = {name: array.copy() for name, array in engine.inputs.items()}
        engine.enqueue()
        for name, array in engine.inputs.items():
            np.testing.assert_array_equal(array, before[name])


def test_each_input_matters(case):
    backend, source = case
    if backend == 'null':
        pytest.skip('null computes nothing')
    with load_engine(backend, source, {}) as engine:
        fill(engine.inputs)
        engine.enqueue()
        first = {name: array.copy() for name, array in engine.outputs.items()}
        for name, array in engine.inputs.items():
            saved = array.copy()
            if array.dtype == bool:
                array[..., -5:] = False
            else:
                array[...] = array[..., ::-1].copy()
            engine.enqueue()
            changed = [n for n, out in engine.outputs.items() if not np.allclose(out, first[n])]
            assert changed, name
            array[...] = saved


def test_given_buffers_are_used_in_place(case):
    backend, source = case
    spec = source.inputs[0]
    mine = np.full(spec.shape, 0.25, spec.dtype)
    buffers = {spec.name: mine, 'of another stage': np.ones(3)}
    with load_engine(backend, source, buffers) as engine:
        assert engine.inputs[spec.name] is mine
        assert set(buffers) == {'of another stage', *engine.inputs, *engine.outputs}
        if 'prefix_mask' in engine.inputs:
            engine.inputs['prefix_mask'].fill(True)
        engine.enqueue()


def test_wrong_buffer_is_refused(case):
    backend, source = case
    spec = source.inputs[0]
    for wrong in (
        np.ones((*spec.shape, 2), spec.dtype),
        np.ones(spec.shape, 'float64'),
    ):
        with pytest.raises(BackendError, match=f"buffer '{spec.name}' is .* the engine wants"):
            load_engine(backend, source, {spec.name: wrong})
    strided = np.ones((*spec.shape[:-1], 2 * spec.shape[-1]), spec.dtype)[..., ::2]
    with pytest.raises(BackendError, match='is not contiguous'):
        load_engine(backend, source, {spec.name: strided})


def test_closed_engine_refuses_to_run(case):
    backend, source = case
    engine = load_engine(backend, source, {})
    fill(engine.inputs)
    engine.enqueue()
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match='is closed'):
        engine.enqueue()


def test_no_stream_on_the_cpu(case):
    backend, source = case
    with (
        load_engine(backend, source, {}) as engine,
        pytest.raises(BackendError, match='has no stream 3'),
    ):
        engine.enqueue(stream=3)


def test_stages_share_buffers_without_copies(sources):
    buffers = {}
    prefix = load_engine('onnxruntime', sources['prefix'], buffers)
    denoise = load_engine('onnxruntime', sources['denoise'], buffers)
    for name in ('keys', 'values'):
        assert prefix.outputs[name] is denoise.inputs[name]
    assert prefix.inputs['prefix_mask'] is denoise.inputs['prefix_mask']
    fill(prefix.inputs)
    prefix.enqueue()
    denoise.enqueue()
    one = denoise.outputs['actions'].copy()
    fill(prefix.inputs, seed=1)
    prefix.enqueue()
    denoise.enqueue()
    assert np.abs(denoise.outputs['actions'] - one).max() > 1e-3


def test_unknown_backend(sources):
    with pytest.raises(BackendError, match="backend 'openvino' is none of onnxruntime, "):
        load_engine('openvino', sources['vision'], {})


def test_backend_whose_package_is_missing(sources, monkeypatch):
    monkeypatch.setitem(BACKENDS, 'null', 'package_that_is_not_there.engine:Engine')
    with pytest.raises(BackendError, match='needs package_that_is_not_there, which is not inst'):
        load_engine('null', sources['vision'], {})


def test_cuda_graph_without_torch_names_the_extra(sources, monkeypatch):
    for name in [n for n in sys.modules if n.startswith('vla_trt_ros.policies.pi05.cuda')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(
        BackendError, match=r"cuda_graph needs torch, .*pip install 'vla_trt_ros\[cuda-graph\]'"
    ):
        load_engine('cuda_graph', sources['vision'], {})


def test_onnxruntime_file_is_missing(sources, tmp_path):
    source = replace(sources['vision'], file=tmp_path / 'vision.onnx')
    with pytest.raises(BackendError, match=r'vision.onnx does not exist; export'):
        load_engine('onnxruntime', source, {})


def test_onnxruntime_file_is_damaged(sources, tmp_path):
    damaged = tmp_path / 'vision.onnx'
    damaged.write_bytes(sources['vision'].file.read_bytes()[:200])
    with pytest.raises(BackendError, match=r'ONNX Runtime \S+ cannot load'):
        load_engine('onnxruntime', replace(sources['vision'], file=damaged), {})


def test_onnxruntime_weights_are_missing(sources, tmp_path):
    alone = tmp_path / 'vision.onnx'
    alone.write_bytes(sources['vision'].file.read_bytes())
    with pytest.raises(BackendError, match=r'cannot load'):
        load_engine('onnxruntime', replace(sources['vision'], file=alone), {})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'shape': (2, 3, 56, 56)}, r"'pixels' is float32 \[2, 3, \d+, \d+\] .* \[2, 3, 56, 56\]"),
        ({'dtype': 'float16'}, "'pixels' is float32"),
        ({'name': 'images'}, "'images' is missing"),
    ],
)
def test_onnxruntime_file_that_differs_from_the_manifest(sources, change, message):
    (pixels,) = sources['vision'].inputs
    with pytest.raises(BackendError, match=message):
        load_engine(
            'onnxruntime', replace(sources['vision'], inputs=(replace(pixels, **change),)), {}
        )


def test_onnxruntime_file_with_more_outputs(sources):
    source = sources['prefix']
    with pytest.raises(BackendError, match="one more output, 'values'"):
        load_engine('onnxruntime', replace(source, outputs=source.outputs[:1]), {})


def test_dtype_that_numpy_lacks():
    source = EngineSource('x', None, (), (TensorSpec('image_tokens', (1, 2, 8), 'e4m3'),))
    with pytest.raises(BackendError, match="NumPy has no dtype 'e4m3'"):
        load_engine('null', source, {})
