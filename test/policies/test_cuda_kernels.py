"""The Triton kernels against plain PyTorch: on a GPU, or on the CPU in Triton's interpreter.

TRITON_INTERPRET=1 python -m pytest test/policies/test_cuda_kernels.py
"""

import os
from dataclasses import replace

import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
pytest.importorskip('triton', reason='needs Triton, which comes with PyTorch for CUDA')

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip('needs a GPU, or TRITON_INTERPRET=1', allow_module_level=True)

from vla_trt_ros.errors import BackendError  # noqa: E402
from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.buffers import make_buffers  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.fold import FP8, Linear, fold  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.graphs import Graphs  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.operations import TorchOps  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.quantize import with_unit_scales  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.stages import Stages  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.tables import step_tables  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.triton_ops import TritonOps  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.tuning import Tile, Tuning  # noqa: E402
from vla_trt_ros.policies.pi05.spec import (  # noqa: E402
    ExpertConfig,
    Pi05Config,
    PrefixConfig,
    VisionConfig,
)

pytestmark = pytest.mark.gpu

DEVICE = 'cpu' if INTERPRETED else 'cuda'
SMALL = Pi05Config(
    image_size=28,
    patch=14,
    views=('base', 'wrist'),
    vision=VisionConfig(width=32, depth=1, heads=2, mlp=48),
    prefix=PrefixConfig(width=128, depth=2, heads=4, kv_heads=1, head_dim=32, mlp=256),
    expert=ExpertConfig(width=64, mlp=256),
    vocab_size=64,
    prompt_buckets=(12,),
    horizon=10,
)
LOOPED = Tuning(
    qkv=Tile(16, 32, stages=2),
    out=Tile(16, 64),
    gate_up=Tile(16, 32, stages=2),
    down=Tile(16, 64, split=4, stages=2),
    attend=Tile(16, 16),
    merge_rows=2,
    prefix=(16, 16, 4, 1),
    chain=False,
)
AHEAD = replace(
    LOOPED,
    qkv=Tile(16, 64, stages=0),
    gate_up=Tile(16, 32, stages=0),
    down=Tile(16, 64, split=2, stages=0),
)


@pytest.fixture(scope='module')
def network():
    model = random_model(SMALL, seed=3)
    load = {n: p.detach().to(DEVICE) for n, p in model.named_parameters()}.__getitem__
    dtype = torch.float32 if INTERPRETED else torch.bfloat16
    weights = with_unit_scales(fold(SMALL, load, dtype))
    return weights, {steps: step_tables(weights, load, steps) for steps in (1, 2)}


def filled(weights, ops, prompt):
    buffers = make_buffers(weights, 2, 12, max_steps=2)
    generator = torch.Generator().manual_seed(0)
    buffers.pixels.copy_(torch.rand(buffers.pixels.shape, generator=generator) * 2 - 1)
    buffers.tokens.copy_(torch.randint(64, buffers.tokens.shape, generator=generator))
    buffers.valid.fill_(2 * SMALL.tokens_per_view + prompt)
    buffers.latents[0, :10] = torch.randn(10, SMALL.action_dim, generator=generator)
    return Stages(weights, buffers, ops)


@pytest.mark.parametrize('tuning', [LOOPED, AHEAD], ids=['looped', 'ahead'])
@pytest.mark.parametrize('prompt', [12, 9])
def test_fused_stages_equal_plain_ones(network, tuning, prompt):
    weights, tables = network
    results = []
    for ops in (TorchOps(), TritonOps(tuning, SMALL.horizon)):
        stages = filled(weights, ops, prompt)
        with torch.no_grad():
            stages.vision()
            stages.prefix(12)
            actions = stages.denoise(tables[2])
        count = 2 * SMALL.tokens_per_view + prompt + SMALL.horizon
        results.append((actions, stages.buffers.keys[:, :count], stages.buffers.values[:, :count]))
    for plain, fused in zip(*results, strict=True):
        error = torch.linalg.norm((plain - fused).float()) / torch.linalg.norm(plain.float())
        # On the CPU, addmm's GELU is the exact one.
        assert error < (1e-3 if INTERPRETED else 3e-2)


@pytest.mark.skipif(INTERPRETED, reason='descriptors of blocks need a GPU')
@pytest.mark.parametrize('count', [130, 512])
@pytest.mark.parametrize('quantized', [False, True])
def test_a_product_and_geglu_in_one_kernel(count, quantized):
    torch.manual_seed(0)
    weight = torch.randn(1024, 256, device=DEVICE).bfloat16() / 16
    a = torch.randn(count, 256, device=DEVICE).bfloat16()
    into = Linear('down', torch.zeros(16, 512, device=DEVICE, dtype=torch.bfloat16))
    product = Linear('gate_up', weight)
    if quantized:
        scale = torch.tensor(0.25, device=DEVICE)
        product = Linear(
            'gate_up', (weight * 8).to(FP8), None, scale / 4, 1.0, scale * 2, result=0.5
        )
        a, into = a.to(FP8), replace(into, weight=into.weight.to(FP8), act=0.125)
    fused = TritonOps(replace(LOOPED, geglu_rows=1), SMALL.horizon)
    plain = TorchOps().geglu_product(a, product, into).float()
    error = torch.linalg.norm(fused.geglu_product(a, product, into).float() - plain)
    # Plain operations store the product as FP8 in between.
    assert error / torch.linalg.norm(plain) < (8e-2 if quantized else 1e-2)


@pytest.mark.skipif(INTERPRETED, reason='graphs need a GPU')
def test_steps_switch_between_replays_and_an_unknown_count_says_so(network):
    weights, tables = network
    graphs = Graphs(filled(weights, TritonOps(LOOPED, SMALL.horizon), 9), tables)
    graphs.capture_all((12,))
    with torch.no_grad():
        expected = {steps: graphs.run(12, steps).clone() for steps in (1, 2)}
    for steps in (1, 2, 1):
        assert torch.equal(graphs.replay(12, steps), expected[steps])
    with pytest.raises(BackendError, match='no graph for 12 prompt tokens and 3 steps'):
        graphs.replay(12, 3)
