"""The cuda_graph backend on a GPU, against ONNX Runtime on the CPU."""

import time
from contextlib import ExitStack

import numpy as np
import pytest
from gpu_there import needs_gpu

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
pytest.importorskip('onnx', reason="needs ONNX: pip install '.[export]'")

from fast_bundles import TINY, actions, make_bundle, observation  # noqa: E402

from vla_trt_ros.config import PlatformConfig, StageChoice  # noqa: E402
from vla_trt_ros.errors import BackendError  # noqa: E402
from vla_trt_ros.gpu import cuda  # noqa: E402
from vla_trt_ros.gpu.cuda import Stream  # noqa: E402
from vla_trt_ros.policies.pi05.engines import load_engines  # noqa: E402
from vla_trt_ros.policies.registry import load_policy_from  # noqa: E402

pytestmark = needs_gpu

ONNX = StageChoice('onnxruntime', 'fp32')


def platform(vision, prefix=None, denoise=None):
    return PlatformConfig(
        'here', 'a test', cuda.device_target(), vision, prefix or vision, denoise or vision
    )


def fast(precision='fp32'):
    return StageChoice('cuda_graph', precision)


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp('fast') / 'tiny')


CASES = {
    'both': observation('base', 'wrist'),
    'long': observation('base', 'wrist', prompt='reach the goal ' * 5),
    'wrist': observation('wrist'),
}


@pytest.fixture(scope='module')
def expected(bundle):
    chosen = platform(ONNX)
    return {name: actions(bundle, chosen, seen) for name, seen in CASES.items()}


@pytest.mark.parametrize(
    ('precision', 'bound'), [('fp32', 1e-4), ('bf16', 0.05), ('fp8', 0.3)], ids=str
)
def test_one_graph_computes_what_onnx_does(bundle, expected, precision, bound):
    for name, seen in CASES.items():
        found = actions(bundle, platform(fast(precision)), seen)
        error = np.linalg.norm(found - expected[name]) / np.linalg.norm(expected[name])
        assert error < bound, name


@pytest.mark.parametrize('stage', ['vision', 'prefix', 'denoise'])
def test_a_stage_on_the_cpu_among_stages_on_the_gpu(bundle, expected, stage):
    chosen = {s: ONNX if s == stage else fast() for s in ('vision', 'prefix', 'denoise')}
    found = actions(bundle, platform(**chosen), CASES['wrist'])
    np.testing.assert_allclose(found, expected['wrist'], atol=1e-4 * np.abs(found).max())


def test_replays_repeat_and_switch_without_memory_and_tell_their_times(bundle):
    with ExitStack() as stack:
        engines = load_engines(bundle, TINY, platform(fast('bf16')), stack)
        assert engines.on_gpu
        stream = stack.enter_context(closing(Stream()))
        told = []
        engines.capture(stack, stream, pixels_on_gpu=False, report=lambda *x: told.append(x))
        assert told[-1] == (4, 4)
        rng = np.random.default_rng(0)
        engines.pixels[...] = rng.uniform(-1, 1, engines.pixels.shape)
        engines.noise[...] = rng.standard_normal(engines.noise.shape)
        seen = {}

        def run(views, bucket):
            chain = engines.chain(views, bucket, 3)
            assert chain.captured.captured
            chain.tokens[...] = np.arange(bucket) % 700
            chain.mask[...] = False
            chain.mask[: views * TINY.tokens_per_view] = True
            chain.mask[TINY.image_tokens :][:9] = True
            chain.launch()
            chain.wait()
            times = chain.stage_ms()
            assert list(times) == ['upload', 'vision', 'prefix', 'denoise', 'download']
            assert all(0 < ms < 100 for ms in times.values())
            return chain.actions.copy()

        keys = [(2, 24), (1, 24), (2, 48), (1, 48)]
        for key in keys:
            seen[key] = run(*key)
        free = cuda.memory()[0]
        before = cuda.traffic.uploads
        for key in 3 * keys:
            np.testing.assert_array_equal(run(*key), seen[key])
        assert cuda.memory()[0] == free
        assert cuda.traffic.uploads - before == 4 * 12  # pixels, tokens, mask, noise
        assert np.abs(seen[2, 24] - seen[1, 24]).max() > 1e-3
        # The bucket is padding alone.
        np.testing.assert_allclose(seen[2, 24], seen[2, 48], atol=0.02)
        with pytest.raises(BackendError, match='no graph was captured for 2 views, 24 prompt tok'):
            engines.chain(2, 24, 5)


class closing:  # noqa: N801
    def __init__(self, what):
        self.what = what

    def __enter__(self):
        return self.what

    def __exit__(self, *error):
        self.what.close()


def test_a_full_gpu_is_said_before_weights_are_loaded(bundle, monkeypatch):
    _, total = cuda.memory()
    monkeypatch.setattr(cuda, 'memory', lambda: (100 << 20, total))
    with pytest.raises(BackendError, match='needs 0.5. GB of GPU memory .*0.10 of .* GB are free'):
        load_policy_from(bundle, platform(fast('bf16')))


def test_a_gpu_that_fills_up_at_capture(bundle, monkeypatch):
    with ExitStack() as stack:
        engines = load_engines(bundle, TINY, platform(fast('bf16')), stack)
        stream = Stream()
        real = torch.sum

        def full(*args, **more):
            if cuda.is_capturing(stream.handle):
                raise torch.OutOfMemoryError('CUDA out of memory.')
            return real(*args, **more)

        monkeypatch.setattr(torch, 'sum', full)
        with pytest.raises(BackendError, match='prefix, 48 tokens: the GPU is full'):
            engines.capture(stack, stream)
        monkeypatch.undo()
        engines.capture(stack, stream)  # the failed capture was ended


def test_policy_frees_the_gpu(bundle):
    policy = load_policy_from(bundle, platform(fast('bf16')))
    policy.warm_up()
    policy.close()
    with pytest.raises(BackendError, match='closed'):
        policy.infer(CASES['both'], num_steps=3)


LOSE = """
import torch
from vla_trt_ros.errors import BackendError, DeviceLost
from vla_trt_ros.gpu import cuda
from vla_trt_ros.policies.pi05.cuda.network import explained
for _ in range(3):
    try:
        with explained('denoise'):
            torch.zeros(4, device='cuda')[torch.tensor([9], device='cuda')] = 1.0
            torch.cuda.synchronize()
    except DeviceLost as error:
        print('lost', 'restart the node' in str(error))
try:
    cuda.Stream()
except DeviceLost as error:
    print('lost', 'restart the node' in str(error))
"""


def test_a_lost_device_is_said_by_every_later_call():
    import subprocess
    import sys

    began = time.monotonic()
    done = subprocess.run([sys.executable, '-c', LOSE], capture_output=True, text=True, timeout=60)
    assert done.stdout.split('\n')[:4] == 4 * ['lost True'], done.stderr[-2000:]
    assert time.monotonic() - began < 60
