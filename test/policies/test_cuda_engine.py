"""The cuda_graph backend without a GPU: its wiring, its refusals, and that it computes what the
ONNX graphs of the same weights do. On a GPU: test_cuda_engine_gpu.py.
"""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
pytest.importorskip('onnx', reason="needs ONNX: pip install '.[export]'")
pytest.importorskip('ml_dtypes', reason="needs ml_dtypes: pip install '.[export]'")

from fast_bundles import (  # noqa: E402
    FAST,
    ONNX,
    TINY,
    actions,
    make_bundle,
    observation,
    platform,
)

from vla_trt_ros.backends.registry import BACKENDS  # noqa: E402
from vla_trt_ros.backends.torch_gpu import explained  # noqa: E402
from vla_trt_ros.config import StageChoice  # noqa: E402
from vla_trt_ros.errors import BackendError, BundleError, ConfigError, DeviceLost  # noqa: E402
from vla_trt_ros.export.pi05.fast import add_fast, fast_engines  # noqa: E402
from vla_trt_ros.gpu import cuda  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.network import Network, _target  # noqa: E402
from vla_trt_ros.policies.registry import load_policy_from  # noqa: E402


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp('fast') / 'tiny')


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setitem(BACKENDS, 'cuda_graph', 'vla_trt_ros.policies.pi05.cuda.engine:on_cpu')


@pytest.fixture(scope='module')
def seen_by_onnx(bundle):
    """Actions of ONNX Runtime by views, number of steps and prompt."""
    chosen = platform(ONNX, ONNX, ONNX)
    long = 'reach the goal ' * 5
    return {
        case: actions(bundle, chosen, observation(*case[0], prompt=case[2]), case[1])
        for case in (
            (('base', 'wrist'), 3, 'reach the goal'),
            (('base', 'wrist'), 3, long),
            (('base',), 3, 'reach the goal'),
        )
    }


@pytest.mark.parametrize(
    'chosen',
    [
        platform(),
        platform(vision=ONNX),
        platform(prefix=ONNX),
        platform(denoise=ONNX),
        platform(ONNX, FAST, ONNX),
        platform(ONNX, ONNX, FAST),
        platform(FAST, ONNX, ONNX),
    ],
    ids=lambda p: ' '.join(c.backend for c in (p.vision, p.prefix, p.denoise)),
)
def test_any_mix_of_backends_computes_the_same(bundle, seen_by_onnx, chosen):
    for (views, steps, prompt), expected in seen_by_onnx.items():
        found = actions(bundle, chosen, observation(*views, prompt=prompt), steps)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=5e-5 * np.abs(expected).max())


def test_a_missing_view_matters(seen_by_onnx):
    both, _, one = seen_by_onnx.values()
    assert np.abs(both - one).max() > 1e-2


@pytest.mark.parametrize(('precision', 'bound'), [('bf16', 0.02), ('fp8', 0.2)])
def test_lower_precisions_stay_near(bundle, seen_by_onnx, precision, bound):
    choice = StageChoice('cuda_graph', precision)
    expected = next(iter(seen_by_onnx.values()))
    found = actions(bundle, platform(*3 * [choice]), observation('base', 'wrist'))
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < bound


def test_stages_of_two_files_share_what_passes_between_them(bundle, seen_by_onnx):
    fp8, bf16 = (StageChoice('cuda_graph', p) for p in ('fp8', 'bf16'))
    expected = next(iter(seen_by_onnx.values()))
    found = actions(bundle, platform(bf16, fp8, bf16), observation('base', 'wrist'))
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.2


def test_fp32_does_not_go_with_bf16(bundle):
    with pytest.raises(BackendError, match='prefix bf16 and fp32: the cuda_graph stages of one p'):
        load_policy_from(bundle, platform(prefix=StageChoice('cuda_graph', 'bf16'), denoise=ONNX))


def test_a_precision_that_was_not_exported(bundle):
    with pytest.raises(BundleError, match='holds no vision engine for cuda_graph fp16, only cuda'):
        load_policy_from(bundle, platform(vision=StageChoice('cuda_graph', 'fp16')))


def engines(bundle, chosen):
    from contextlib import ExitStack

    from vla_trt_ros.policies.pi05.engines import load_engines

    return load_engines(bundle, TINY, chosen, ExitStack())


def test_a_step_count_that_was_not_captured(bundle):
    with pytest.raises(BackendError, match='no graph was captured for 2 views, 24 prompt tokens '):
        engines(bundle, platform()).chain(2, 24, 5)


def test_views_must_come_first(bundle):
    loaded = engines(bundle, platform())
    chain = loaded.chains[24]
    assert loaded.compacts
    assert not loaded.on_gpu
    for views in ([False, True], [False, False]):
        chain.mask[:] = True
        chain.mask[:32] = np.repeat(views, 16)
        with pytest.raises(BackendError, match='those that are there must come first'):
            chain.prefix.enqueue()
    chain.mask[:32] = True
    chain.mask[3] = False
    with pytest.raises(BackendError, match='those that are there must come first, whole'):
        chain.prefix.enqueue()
    with pytest.raises(BackendError, match='vision: 3 views of 2; one at least'):
        loaded.vision.for_views(3)


def test_too_little_memory_is_said_before_any_is_taken(bundle, monkeypatch):
    network = Network('cpu')
    for stage in ('vision', 'prefix', 'denoise'):
        network.add(stage, network.open(bundle.file('fast.bf16.safetensors')))
    network.device = 'cuda'
    monkeypatch.setattr(cuda, 'memory', lambda: (300_000_000, 8_000_000_000))
    weights, rest = network.needed_bytes()
    assert 300_000 < weights < 2_000_000
    message = f'needs {(weights + rest) / 1e9:.2f} GB of GPU memory .*, 0.30 of 8.00 GB are free'
    with pytest.raises(BackendError, match=message):
        network.load()


def test_memory_of_the_one_kernel_of_all_steps_counts(bundle):
    needed = {}
    for target in ('sm_89', 'sm_90'):
        network = Network('cpu')
        network.target = target
        network.add('denoise', network.open(bundle.file('fast.fp8.safetensors')))
        needed[target] = network.needed_bytes()
    packed = needed['sm_90'][1] - needed['sm_89'][1]
    assert packed == needed['sm_90'][0] == needed['sm_89'][0] > 0


def test_a_gpu_that_is_too_old(bundle, monkeypatch):
    network = Network('cpu')
    network.target = 'sm_86'
    file = network.open(bundle.file('fast.fp8.safetensors'))
    with pytest.raises(BackendError, match='prefix: fp8 needs a GPU of sm_89 or later, this one '):
        network.add('prefix', file)
    monkeypatch.setattr(cuda, 'device_target', lambda: 'sm_75')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    with pytest.raises(BackendError, match='needs a GPU of sm_80 or later, this one is sm_75'):
        _target('cuda')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(BackendError, match=r'cannot use the GPU \(sm_75\): install .*cuda-graph'):
        _target('cuda')


def test_no_gpu(bundle, monkeypatch):
    def nothing():
        raise BackendError('asking the GPU what it is: CUDA says cudaErrorNoDevice')

    monkeypatch.setattr(cuda, 'device_target', nothing)
    monkeypatch.setitem(
        BACKENDS, 'cuda_graph', 'vla_trt_ros.policies.pi05.cuda.engine:CudaGraphEngine'
    )
    with pytest.raises(BackendError, match='CUDA says cudaErrorNoDevice'):
        load_policy_from(bundle, platform())


def test_memory_that_runs_out_at_capture(monkeypatch):
    monkeypatch.setattr(cuda, 'memory', lambda: (1_000_000, 8_000_000_000))
    with (
        pytest.raises(BackendError, match='prefix: the GPU is full, 0.00 of 8.00 GB are free'),
        explained('prefix'),
    ):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate')


@pytest.mark.parametrize(
    ('name', 'kind', 'message'),
    [
        ('cudaErrorIllegalAddress', DeviceLost, 'lost to this process: restart the node'),
        ('cudaErrorStreamCaptureUnsupported', BackendError, 'denoise: CUDA error: an illegal'),
    ],
)
def test_torch_and_cuda_tell_of_a_lost_device_alike(monkeypatch, name, kind, message):
    class Status(int):
        pass

    status = Status(1)
    status.name = name
    monkeypatch.setattr(
        cuda, 'runtime', lambda: SimpleNamespace(cudaDeviceSynchronize=lambda: (status,))
    )
    with pytest.raises(kind, match=message) as caught, explained('denoise'):
        raise RuntimeError('CUDA error: an illegal memory access was encountered')
    assert type(caught.value) is kind


def test_another_error_of_torch_keeps_its_words():
    with pytest.raises(BackendError, match='vision: mat1 and mat2 shapes'), explained('vision'):
        raise RuntimeError('mat1 and mat2 shapes cannot be multiplied\nmore')


def test_entries_of_a_bundle_are_one_file():
    entries = fast_engines(TINY, 'bf16')
    assert len(entries) == 1 + 2 * (1 + 1)
    assert {e.file for e in entries} == {'fast.bf16.safetensors'}
    assert {e.target for e in entries} == {'any'}
    assert entries[0].outputs[0].dtype == 'bfloat16'


def test_precisions_and_frames_are_checked_before_anything_is_made(bundle, tmp_path):
    with pytest.raises(ConfigError, match='cuda_graph does not compute int8; choose of fp32'):
        add_fast(tmp_path, None, ('int8',))
    with pytest.raises(ConfigError, match='fp8 for cuda_graph needs frames of the robot'):
        add_fast(tmp_path, None, ('fp8',))
