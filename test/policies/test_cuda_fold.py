"""The folded weights and the stages made of them compute what the reference network computes."""

import dataclasses

import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")

from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.buffers import make_buffers  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.fold import fold  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.operations import TorchOps  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.stages import Stages  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.tables import step_tables  # noqa: E402
from vla_trt_ros.policies.pi05.spec import NANO  # noqa: E402

TINY = dataclasses.replace(NANO, prompt_buckets=(7, 12), horizon=5)


@pytest.fixture(scope='module')
def model():
    return random_model(TINY, seed=3)


def load_from(model):
    named = dict(model.named_parameters())
    return named.__getitem__


def inputs(config, views, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = config.image_size
    pixels = torch.rand(views, 3, size, size, generator=generator) * 2 - 1
    tokens = torch.randint(config.vocab_size, (config.max_prompt_tokens,), generator=generator)
    noise = torch.randn(config.horizon, config.action_dim, generator=generator)
    return pixels, tokens, noise


@pytest.mark.parametrize(
    ('views', 'bucket', 'prompt', 'steps'),
    [(2, 12, 12, 3), (2, 12, 9, 1), (2, 7, 4, 2), (1, 12, 11, 2)],
)
def test_stages_equal_the_reference_network(model, views, bucket, prompt, steps):
    pixels, tokens, noise = inputs(TINY, views)
    weights = fold(TINY, load_from(model), torch.float32)
    buffers = make_buffers(weights, views, TINY.max_prompt_tokens, max_steps=3)
    stages = Stages(weights, buffers, TorchOps())
    valid = views * TINY.tokens_per_view + prompt
    buffers.pixels.copy_(pixels)
    buffers.tokens[: TINY.max_prompt_tokens] = tokens
    buffers.valid.fill_(valid)
    buffers.latents[0, : TINY.horizon] = noise
    with torch.no_grad():
        stages.vision()
        stages.prefix(bucket)
        actions = stages.denoise(step_tables(weights, load_from(model), steps))
        mask = torch.ones(1, valid, dtype=torch.bool)
        expected = model.sample_actions(pixels, tokens[None, :prompt], mask, noise[None], steps)
    assert torch.linalg.norm(actions - expected[0]) / torch.linalg.norm(expected) < 2e-5
    assert expected.std() > 0.1
