"""The cuda_graph backend on a GPU, against ONNX Runtime on the CPU."""

import time
from contextlib import ExitStack

import numpy as np
import pytest
from gpu_there import has_gpu, needs_gpu

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
pytest.importorskip('onnx', reason="needs ONNX: pip install '.[export]'")

from fast_bundles import SERVED, TINY, actions, make_bundle, observation  # noqa: E402

from vla_trt_ros.backends.base import bind  # noqa: E402
from vla_trt_ros.backends.registry import BACKENDS  # noqa: E402
from vla_trt_ros.config import PlatformConfig, StageChoice  # noqa: E402
from vla_trt_ros.errors import BackendError  # noqa: E402
from vla_trt_ros.gpu import cuda  # noqa: E402
from vla_trt_ros.gpu.cuda import Stream  # noqa: E402
from vla_trt_ros.gpu.mirror import mirror_of  # noqa: E402
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


@pytest.mark.skipif(not has_gpu() or cuda.device_target() != 'sm_90', reason='needs sm_90')
def test_fast_kernels_compute_what_plain_operations_do(tmp_path, caplog):
    served = make_bundle(tmp_path / 'served', SERVED, (), gain=1.0)
    exact = {name: actions(served, platform(fast()), seen) for name, seen in CASES.items()}
    assert 'plain PyTorch operations' in caplog.text
    for precision, bound in (('bf16', 0.015), ('fp8', 0.12)):
        caplog.clear()
        for name, seen in CASES.items():
            found = actions(served, platform(fast(precision)), seen)
            error = np.linalg.norm(found - exact[name]) / np.linalg.norm(exact[name])
            assert 1e-5 < error < bound, (precision, name)
        assert 'plain PyTorch operations' not in caplog.text


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


class Canned:
    """A stage of another backend on the GPU: it copies what it was given to its outputs."""

    on_gpu, compacts = True, False
    given: dict = {}  # noqa: RUF012

    def __init__(self, source, buffers):
        self.name = source.name
        self.inputs = bind(source.inputs, buffers, lambda s: cuda.pinned(s.shape, s.dtype))
        self.outputs = bind(source.outputs, buffers, lambda s: cuda.pinned(s.shape, s.dtype))
        self.mirrors = {n: mirror_of(a) for n, a in (self.inputs | self.outputs).items()}
        for name, mirror in self.mirrors.items():
            mirror.read |= name in self.inputs
            mirror.written |= name in self.outputs
        stream, self.held = cuda.Stream(), {}
        for name, array in self.outputs.items():
            host = cuda.pinned(array.shape, array.dtype)
            if self.given.get(name) is not None and self.given[name].shape == host.shape:
                host[...] = self.given[name]
            self.held[name] = cuda.DeviceBuffer(host.nbytes)
            cuda.upload(self.held[name].address, host, stream.handle)
        stream.wait()

    def for_views(self, views):
        return self

    def enqueue(self, *, stream=None):
        kind = cuda.runtime().cudaMemcpyKind.cudaMemcpyDeviceToDevice
        for name, mirror in ((n, self.mirrors[n]) for n in self.outputs):
            copied = cuda.runtime().cudaMemcpyAsync(
                mirror.address, self.held[name].address, self.outputs[name].nbytes, kind, stream
            )
            cuda.check(copied, 'copying')

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.mark.parametrize('views', [('base', 'wrist'), ('wrist',)], ids=len)
def test_stages_of_two_backends_in_one_graph(bundle, expected, monkeypatch, views):
    seen = CASES['both' if len(views) == 2 else 'wrist']
    with ExitStack() as stack:
        host = load_engines(bundle, TINY, platform(ONNX), stack)
        policy = stack.enter_context(closing(load_policy_from(bundle, platform(ONNX))))
        noise = np.random.default_rng(3).standard_normal(policy.noise_shape).astype(np.float32)
        inputs = policy.network_inputs(seen, noise)
        mask = inputs['prefix_mask'][0]
        bucket = inputs['tokens'].shape[1]
        if len(views) == 1:  # those that are there first
            inputs['pixels'] = inputs['pixels'][::-1]
            images = TINY.image_tokens
            mask[:images] = np.roll(mask[:images], TINY.tokens_per_view)
        chain = host.chains[bucket]
        host.pixels[...] = inputs['pixels']
        chain.tokens[...], chain.mask[...] = inputs['tokens'][0], mask
        host.noise[0] = inputs['noise'][0]
        for engine in (host.vision, chain.prefix, chain.denoise[3]):
            engine.enqueue()
        tensors = {n: a.copy() for n, a in chain.prefix.outputs.items()}
        actions = host.actions.copy()
        monkeypatch.setitem(BACKENDS, 'onnxruntime', f'{__name__}:Canned')
        Canned.given = tensors
        stream = stack.enter_context(closing(Stream()))

        def run(*choices):
            engines = load_engines(bundle, TINY, platform(*choices), stack)
            assert engines.on_gpu
            engines.capture(stack, stream, pixels_on_gpu=False)
            gpu = engines.chain(len(views), bucket, 3)
            assert gpu.captured.captured
            gpu.pixels[...] = inputs['pixels']
            gpu.tokens[...], gpu.mask[...] = inputs['tokens'][0], mask
            gpu.noise[...] = inputs['noise'][0]
            gpu.launch()
            gpu.wait()
            return engines, gpu

        _, gpu = run(ONNX, ONNX, fast())
        np.testing.assert_allclose(gpu.actions, actions[0], atol=1e-4 * np.abs(actions).max())
        engines, _ = run(fast(), fast(), ONNX)
        prefix = engines.chains[bucket].prefix
        for name, array in tensors.items():
            found = cuda.pinned(array.shape, array.dtype)
            prefix.mirrors[name].download(found, stream.handle)
            stream.wait()
            there, here = (a[:, 0, 0][:, mask] for a in (array, found))
            np.testing.assert_allclose(here, there, atol=1e-4 * np.abs(there).max())


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
from vla_trt_ros.backends.torch_gpu import explained
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
