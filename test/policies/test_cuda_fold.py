"""The folded weights and the stages made of them compute what the reference network computes."""

import dataclasses

import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")

from vla_trt_ros.errors import ConfigError  # noqa: E402
from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.buffers import make_buffers  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.fold import fold  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.operations import TorchOps  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.quantize import RangeOps, Ranges, quantize  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.stages import Stages  # noqa: E402
from vla_trt_ros.policies.pi05.cuda.tables import step_tables  # noqa: E402
from vla_trt_ros.policies.pi05.spec import NANO  # noqa: E402

TINY = dataclasses.replace(NANO, prompt_buckets=(7, 12), horizon=5)


@pytest.fixture(scope='module')
def model():
    # Attention of unit gain: a sharp one amplifies rounding, and the bounds below are tight.
    return random_model(TINY, seed=3, sharpness=1.0)


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


def test_a_token_beyond_the_valid_ones_changes_nothing(model):
    pixels, tokens, noise = inputs(TINY, 2)
    weights = fold(TINY, load_from(model), torch.float32)
    tables = step_tables(weights, load_from(model), 2)
    results = []
    for beyond in (1, 2):
        buffers = make_buffers(weights, 2, TINY.max_prompt_tokens, max_steps=2)
        buffers.pixels.copy_(pixels)
        buffers.tokens.fill_(beyond)
        buffers.tokens[:5] = tokens[:5]
        buffers.valid.fill_(2 * TINY.tokens_per_view + 5)
        buffers.latents[0, : TINY.horizon] = noise
        stages = Stages(weights, buffers, TorchOps())
        with torch.no_grad():
            stages.vision()
            stages.prefix(TINY.max_prompt_tokens)
            results.append(stages.denoise(tables).clone())
    assert torch.equal(*results)


def test_fp8_keeps_to_the_actions_and_names_what_was_not_calibrated(model):
    pixels, tokens, noise = inputs(TINY, 2)
    weights = fold(TINY, load_from(model), torch.float32)
    tables = step_tables(weights, load_from(model), 2)
    ranges = Ranges()

    def actions(chosen, ops):
        buffers = make_buffers(weights, 2, TINY.max_prompt_tokens, max_steps=2)
        buffers.pixels.copy_(pixels)
        buffers.tokens[:12] = tokens
        buffers.latents[0, : TINY.horizon] = noise
        stages = Stages(chosen, buffers, ops)
        with torch.no_grad():
            stages.vision()
            stages.prefix(TINY.max_prompt_tokens)
            return stages.denoise(tables)

    exact = actions(weights, RangeOps(TorchOps(), ranges))
    fast = quantize(weights, ranges)
    rounded = actions(fast, TorchOps())
    assert fast.expert[0].qkv.quantized
    assert not fast.vision[0].qkv.quantized
    cosine = torch.nn.functional.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0)
    assert 0.95 < cosine < 0.99999
    with pytest.raises(ConfigError, match='was not seen in calibration'):
        quantize(weights, Ranges())
