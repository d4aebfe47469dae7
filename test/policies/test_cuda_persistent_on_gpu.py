"""All denoise steps in one kernel against plain PyTorch, on a GPU of compute capability 9.0."""

import shutil
from dataclasses import replace

import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
    pytest.skip('needs a GPU of compute capability 9.0', allow_module_level=True)
pytest.importorskip('cuda.core', reason="pip install '.[tensorrt]'")

from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.policies.pi05.cuda import persistent  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.buffers import make_buffers  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.fold import fold  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.graphs import Graphs  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.operations import TorchOps  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.persistent import PersistentDenoise  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.quantize import (  # noqa: E402
    RangeOps,
    Ranges,
    quantize,
    with_unit_scales,
)
from vla_trt_ros.policies.pi05.cuda.stages import Stages  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.tables import step_tables  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.triton_ops import TritonOps  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.tuning import tuning_for  # noqa: E402
from vla_trt_ros.policies.pi05.spec import PI05, PrefixConfig, VisionConfig  # noqa: E402

pytestmark = pytest.mark.gpu

# The expert at true size; what only fills the cache is small.
CONFIG = replace(
    PI05,
    vocab_size=64,
    vision=VisionConfig(64, 1, 2, 64),
    prefix=PrefixConfig(256, 2, 8, 1, 256, 256),
)
SHAPES = [
    (3, 200, 50, 968),
    (3, 200, 50, 931),
    (2, 48, 10, 560),
    (1, 48, 13, 257),
    (1, 48, 64, 300),
    (1, 16, 50, 3),
    (1, 16, 4, 1),
]


def stages(weights, ops, views, bucket, horizon, valid):
    weights = replace(weights, config=replace(weights.config, horizon=horizon))
    buffers = make_buffers(weights, views, bucket, max_steps=2)
    generator = torch.Generator('cuda').manual_seed(0)
    for cache in (buffers.keys, buffers.values):
        cache.copy_(torch.randn(cache.shape, generator=generator, device='cuda'))
        cache[:, valid:] = float('nan')  # what the prefix's padding may hold
    buffers.valid.fill_(valid)
    noise = torch.randn(horizon, CONFIG.action_dim, generator=generator, device='cuda')
    buffers.latents[0, :horizon] = noise
    return Stages(weights, buffers, ops)


@pytest.fixture(scope='module')
def network():
    model = random_model(CONFIG, seed=0, device='cuda', sharpness=1.0)
    load = {n: p.detach() for n, p in model.named_parameters()}.__getitem__
    weights = with_unit_scales(fold(CONFIG, load))
    tables = {steps: step_tables(weights, load, steps) for steps in (1, 2)}
    ranges = Ranges()
    with torch.no_grad():
        seen = stages(weights, RangeOps(TorchOps(), ranges), *SHAPES[0])
        seen.buffers.keys.nan_to_num_()
        seen.buffers.values.nan_to_num_()
        seen.denoise(tables[2])
    for linear in weights.linears():
        ranges.largest.setdefault(linear.name, 1.0)
    return quantize(weights, ranges), tables


def whole(horizon):
    return TritonOps(tuning_for(True, horizon), horizon)


@pytest.mark.parametrize('shape', SHAPES)
def test_steps_equal_plain_ones(network, shape):
    weights, tables = network
    horizon = shape[2]
    fast = stages(weights, whole(horizon), *shape)
    plain = stages(weights, TorchOps(), *shape)
    for cache in (plain.buffers.keys, plain.buffers.values):
        cache.nan_to_num_()
    with torch.no_grad():
        actions, expected = fast.denoise(tables[1]), plain.denoise(tables[1])
    assert isinstance(fast.ops._whole[1], PersistentDenoise)
    # Noise that differs by a thousandth moves one step's actions by 0.015, two steps' by 0.08: FP8
    # rounds the other way here and there. So one step, and unit gain of attention.
    error = torch.linalg.norm(actions - expected) / torch.linalg.norm(expected)
    assert error < 3e-2


def test_replays_repeat_to_the_bit_and_switch_steps(network):
    weights, tables = network
    horizon = SHAPES[0][2]
    made = stages(weights, whole(horizon), *SHAPES[0])
    graphs = Graphs(made, tables)
    captured = {n: graphs.capture(lambda n=n: made.denoise(tables[n])) for n in (1, 2)}
    results = {1: set(), 2: set()}
    for steps in (1, 2, 2, 1, 2):
        captured[steps].replay()
        actions = made.buffers.latents[steps, :horizon].cpu().numpy().tobytes()
        results[steps].add(actions)
    assert [len(x) for x in results.values()] == [1, 1]
    assert results[1] != results[2]


def test_a_stream_that_is_asked_for_too_early_is_asked_for_again(network, monkeypatch, tmp_path):
    """Six blocks before all have stored it, words are missing: the product sees that."""
    weights, tables = network

    def run(early):
        source = persistent.SOURCE.parent
        folder = shutil.copytree(source, tmp_path / f'early {early}')
        stream = folder / 'denoise' / 'stream.cu'
        told = '16 * LIVE_SLICES * (now + 1)'
        text = stream.read_text()
        assert text.count(told) == 1
        stream.write_text(text.replace(told, f'{told} - {early}'))
        with monkeypatch.context() as patched:
            patched.setattr(persistent, 'SOURCE', folder / 'denoise.cu')
            made = stages(weights, whole(SHAPES[0][2]), *SHAPES[0])
            return made.denoise(tables[2]).clone()

    with torch.no_grad():
        assert torch.equal(run(early=6), run(early=0))
