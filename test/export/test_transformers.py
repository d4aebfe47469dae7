"""SigLIP and Gemma at true width against an implementation that is not ours: `transformers`."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="workshop only: pip install '.[export]'")
transformers = pytest.importorskip('transformers', reason="pip install '.[test-export]'")

from numpy_pi05 import Oracle  # noqa: E402

from vla_trt_ros.export.pi05.model import GemmaPrefix  # noqa: E402
from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.export.pi05.siglip import SiglipVision  # noqa: E402
from vla_trt_ros.policies.pi05.spec import PI05  # noqa: E402

RELATIVE = 1e-5
GEMMA_GB = 9


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(vision=2, prefix=2, **changes):
    return replace(
        PI05,
        vision=replace(PI05.vision, depth=vision),
        prefix=replace(PI05.prefix, depth=prefix),
        vocab_size=64,
        **changes,
    )


def randomize(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in module.named_parameters():
            scale = p[0].numel() ** -0.5 if p.ndim > 1 else 0.1
            p.normal_(0.0, scale, generator=generator)
            if p.ndim == 1 and name.endswith(('norm1.weight', 'norm2.weight')):
                p.add_(1.0)
    return module.eval()


def available_gb():
    with open('/proc/meminfo') as lines:
        found = next(line for line in lines if line.startswith('MemAvailable'))
    return int(found.split()[1]) * 1024 / 1e9


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize('depth', [2, pytest.param(27, marks=pytest.mark.slow)])
def test_siglip(depth):
    ours = randomize(SiglipVision(config(vision=depth)))
    vision = PI05.vision
    with torch.device('meta'):
        theirs = transformers.SiglipVisionModel(
            transformers.SiglipVisionConfig(
                hidden_size=vision.width,
                intermediate_size=vision.mlp,
                num_hidden_layers=depth,
                num_attention_heads=vision.heads,
                image_size=224,
                patch_size=14,
                vision_use_head=False,
                attn_implementation='eager',
            )
        ).eval()
    theirs.load_state_dict(ours.state_dict(), assign=True)
    theirs.embeddings.position_ids = torch.arange(256)[None]  # no part of a state dict
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        got, expected = ours(pixels), theirs(pixel_values=pixels).last_hidden_state
    assert got.shape == (2, 256, 1152)
    assert expected.std() > 0.05
    error = relative(got, expected)
    print(f'SigLIP, {depth} layers: relative error {error:.1e}')
    assert error <= RELATIVE


@pytest.mark.parametrize(
    'depth', [2, pytest.param(18, marks=[pytest.mark.alone, pytest.mark.slow])]
)
def test_gemma_over_a_masked_prefix(depth):
    if depth > 2 and available_gb() < GEMMA_GB:
        pytest.skip(f'needs {GEMMA_GB} GB of free memory')
    ours = randomize(GemmaPrefix(config(prefix=depth)))
    prefix = PI05.prefix
    with torch.device('meta'):
        theirs = transformers.GemmaModel(
            transformers.GemmaConfig(
                vocab_size=64,
                hidden_size=prefix.width,
                intermediate_size=prefix.mlp,
                num_hidden_layers=depth,
                num_attention_heads=prefix.heads,
                num_key_value_heads=prefix.kv_heads,
                head_dim=prefix.head_dim,
                hidden_activation='gelu_pytorch_tanh',
                pad_token_id=None,
                attn_implementation='eager',
            )
        ).eval()
    held = ours.state_dict()
    # The last layer's MLP and the final norm, which ours does not have: no key depends on them.
    for name, value in theirs.state_dict().items():
        held.setdefault(name, torch.zeros(value.shape))
    theirs.load_state_dict(held, assign=True)
    theirs.rotary_emb = type(theirs.rotary_emb)(config=theirs.config)  # buffers, off meta
    theirs.embed_tokens.embed_scale = torch.tensor(2048**0.5)

    generator = torch.Generator().manual_seed(2)
    images = torch.randn(1, 40, 2048, generator=generator)
    tokens = torch.randint(0, 64, (1, 12), generator=generator)
    mask = torch.ones(1, 52, dtype=torch.bool)
    mask[0, 10:25] = False  # a view that is missing
    mask[0, 49:] = False  # padding of the prompt
    with torch.no_grad():
        embedded = torch.cat((images, ours.embed(tokens)), dim=1)
        same = torch.cat((images, theirs.embed_tokens(tokens)), dim=1)
        assert relative(embedded, same) <= 1e-7
        keys, values = ours(embedded, mask)
        allowed = mask[:, None, None, :].expand(1, 1, 52, 52)
        bias = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
        cache = transformers.DynamicCache(config=theirs.config)
        theirs(
            inputs_embeds=same,
            attention_mask=bias,
            position_ids=mask.long().cumsum(-1) - 1,
            past_key_values=cache,
            use_cache=True,
        )
    worst = 0.0
    for i in range(depth):
        for got, expected in (
            (keys[i], cache.layers[i].keys),
            (values[i], cache.layers[i].values),
        ):
            worst = max(worst, relative(got[:, :, mask[0]], expected[:, :, mask[0]]))
    print(f'Gemma, {depth} layers: relative error {worst:.1e}')
    assert worst <= RELATIVE
    if depth > 1:  # and a wrong mask would have been seen
        causal = torch.full((52, 52), torch.finfo(torch.float32).min).triu(1)
        other = transformers.DynamicCache(config=theirs.config)
        with torch.no_grad():
            theirs(
                inputs_embeds=same,
                attention_mask=torch.minimum(bias, causal[None, None]),
                position_ids=mask.long().cumsum(-1) - 1,
                past_key_values=other,
                use_cache=True,
            )
        assert relative(keys[1][:, :, mask[0]], other.layers[1].keys[:, :, mask[0]]) > 1e-2


def test_whole_policy_at_true_widths_against_float64():
    """adaRMS, rotary positions with a masked view, and the Euler loop, at reduced depth."""
    small = config(
        vision=1, image_size=56, views=('base', 'wrist'), prompt_buckets=(6,), horizon=15
    )
    model = random_model(small, seed=7)
    oracle = Oracle(small, model.state_dict())
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(2, 3, 56, 56, generator=generator) * 2 - 1
    noise = torch.randn(1, 15, 32, generator=generator)
    tokens = torch.tensor([[2, 11, 5, 40, 0, 0]])
    mask = torch.tensor([[False] * 16 + [True] * 16 + [True] * 4 + [False] * 2])
    cache = oracle.cache([pixels[1].double().numpy()], tokens[0, :4])
    with torch.no_grad():
        keys, values = model.fill_kv_cache(model.embed_images(pixels), tokens, mask)
        got = model.sample_actions(pixels, tokens, mask, noise, 3)[0].double().numpy()
    x, errors = noise[0].double().numpy(), []
    for t in (1.0, 2 / 3, 1 / 3):
        with torch.no_grad():
            row = model.modulation(torch.tensor([t], dtype=torch.float64))[0]
            latent = torch.from_numpy(x).float()[None]
            velocity = model.denoise_step(latent, row, keys, values, mask)[0].numpy()
        expected = oracle.velocity(x, t, cache)
        errors.append(np.linalg.norm(velocity - expected) / np.linalg.norm(expected))
        x = x - expected / 3
    print('velocities at true widths: relative errors', *(f'{e:.1e}' for e in errors))
    assert max(errors) <= RELATIVE
    # Each step's rounding is the next one's input: the network stretches it.
    assert np.linalg.norm(got - x) <= 1e-4 * np.linalg.norm(x)
    assert np.abs(x - noise[0].numpy()).max() > 0.3
