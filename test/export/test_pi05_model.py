"""The PyTorch model against an independent float64 oracle (numpy_pi05.py)."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='workshop only: pip install .[export]')

from numpy_pi05 import Oracle, rms, rope, time_features  # noqa: E402

from vla_trt_ros.export.pi05.layers import (  # noqa: E402
    AdaRMSNorm,
    attention_bias,
    rope_table,
    rotate,
    time_embedding,
)
from vla_trt_ros.export.pi05.model import Pi05  # noqa: E402
from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.policies.pi05.spec import (  # noqa: E402
    PI05,
    ExpertConfig,
    Pi05Config,
    PrefixConfig,
    VisionConfig,
    modulation_shape,
)

SMALL = Pi05Config(
    image_size=28,
    patch=7,
    views=('base', 'wrist'),
    vision=VisionConfig(width=24, depth=2, heads=3, mlp=40),
    prefix=PrefixConfig(width=32, depth=3, heads=4, kv_heads=2, head_dim=10, mlp=48),
    expert=ExpertConfig(width=20, mlp=28),
    vocab_size=50,
    prompt_buckets=(6, 9),
    horizon=5,
    action_dim=8,
    num_steps=(1, 2, 3, 5, 10),
)
TOKENS = (2, 17, 3, 44)


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def model():
    return random_model(SMALL, seed=1)


@pytest.fixture(scope='module')
def oracle(model):
    return Oracle(SMALL, model.state_dict())


def inputs(views=(True, True), bucket=6):
    generator = np.random.default_rng(4)
    pixels = generator.uniform(-1, 1, (2, 3, 28, 28)).astype(np.float32)
    noise = generator.standard_normal((1, 5, 8), dtype=np.float32)
    tokens = np.full((1, bucket), 9, np.int64)  # padding is not zero: it must not matter
    tokens[0, : len(TOKENS)] = TOKENS
    mask = np.concatenate([np.repeat(views, 16), np.arange(bucket) < len(TOKENS)])[None]
    return tuple(torch.from_numpy(a) for a in (pixels, tokens, mask, noise))


@pytest.mark.parametrize('views', [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize('num_steps', [1, 3, 10])
def test_whole_policy_with_masked_views_and_padding(model, oracle, views, num_steps):
    pixels, tokens, mask, noise = inputs(views)
    with torch.no_grad():
        got = model.sample_actions(pixels, tokens, mask, noise, num_steps)[0].numpy()
    there = [p for p, seen in zip(pixels.double().numpy(), views, strict=True) if seen]
    expected = oracle.actions(there, TOKENS, noise[0].numpy(), num_steps)
    assert np.abs(expected - noise[0].numpy()).max() > 0.3
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_vision_tower(model, oracle):
    pixels = inputs()[0]
    with torch.no_grad():
        got = model.embed_images(pixels)[0].numpy()
    expected = np.concatenate([oracle.image_tokens(view) for view in pixels.double().numpy()])
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_keys_and_values_of_every_layer(model, oracle):
    pixels, tokens, mask, _ = inputs((False, True))
    with torch.no_grad():
        keys, values = model.fill_kv_cache(model.embed_images(pixels), tokens, mask)
    valid = mask[0].numpy()
    for i, (k, v) in enumerate(oracle.cache([pixels[1].double().numpy()], TOKENS)):
        scale = np.abs(k).max()
        np.testing.assert_allclose(keys[i, 0][:, valid].numpy(), np.array(k), atol=1e-5 * scale)
        np.testing.assert_allclose(values[i, 0][:, valid].numpy(), np.array(v), atol=1e-5 * scale)


def test_leaving_a_view_out_equals_masking_it(model):
    alone = Pi05(replace(SMALL, views=('base',))).eval()
    alone.load_state_dict(model.state_dict())
    pixels, tokens, mask, noise = inputs((True, False))
    with torch.no_grad():
        masked = model.sample_actions(pixels, tokens, mask, noise, 5)
        out = alone.sample_actions(
            pixels[:1], tokens, torch.cat((mask[:, :16], mask[:, 32:]), 1), noise, 5
        )
    np.testing.assert_allclose(masked.numpy(), out.numpy(), atol=2e-6)


def test_longer_bucket_gives_the_same_actions(model):
    with torch.no_grad():
        short, long = (model.sample_actions(*inputs(bucket=b), 5).numpy() for b in (6, 9))
    np.testing.assert_allclose(short, long, atol=2e-6)


def test_velocity_at_one_time(model, oracle):
    pixels, tokens, mask, noise = inputs()
    cache = oracle.cache(pixels.double().numpy(), TOKENS)
    with torch.no_grad():
        keys, values = model.fill_kv_cache(model.embed_images(pixels), tokens, mask)
        row = model.modulation(torch.tensor([0.37]))[0]
        got = model.denoise_step(noise, row, keys, values, mask)[0].numpy()
    expected = oracle.velocity(noise[0].double().numpy(), 0.37, cache)
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_modulation_rows(model, oracle):
    with torch.no_grad():
        table = model.modulation(torch.tensor([1.0, 0.3]))
    assert table.shape == (2, *modulation_shape(SMALL))
    condition = oracle.condition(0.3)
    for row, name in ((0, 'layers.0.input_layernorm'), (5, 'layers.2.post_attention_layernorm')):
        expected = oracle.linear(f'expert.{name}.dense', condition)
        np.testing.assert_allclose(table[1, row].numpy(), expected, atol=1e-4)


def test_adaptive_norm_by_hand():
    x = torch.tensor([[3.0, 4.0]])
    modulation = torch.tensor([1.0, 0.0, 10.0, 20.0, 0.5, 0.25])
    y, gate = AdaRMSNorm.apply_to(x, modulation)
    root = np.sqrt(12.5)
    np.testing.assert_allclose(y.numpy(), [[6 / root + 10, 4 / root + 20]], rtol=1e-6)
    np.testing.assert_allclose(gate.numpy(), [0.5, 0.25])
    np.testing.assert_allclose(rms(x.numpy()), [[3 / root, 4 / root]], rtol=1e-6)


def test_rotary_embedding_at_high_positions():
    x = np.random.default_rng(0).standard_normal((4, 256))
    position = [0, 1, 700, 1017]
    table = rope_table(torch.tensor([position]), 256)
    got = rotate(torch.from_numpy(x).float()[None, None], table)[0, 0].numpy()
    np.testing.assert_allclose(got, rope(x, position), atol=2e-4)
    np.testing.assert_allclose(got[0], x[0], atol=1e-6)


def test_rotary_table_stays_float32_for_half_precision():
    x = torch.randn(1, 1, 2, 8, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))
    table = rope_table(torch.tensor([[900, 901]]), 8)
    assert table.dtype == torch.float32
    assert rotate(x, table).dtype == torch.bfloat16
    expected = rope(x[0, 0].double().numpy(), [900, 901])
    np.testing.assert_allclose(rotate(x, table)[0, 0].double().numpy(), expected, atol=0.02)


def test_masked_keys_get_exactly_no_weight():
    bias = attention_bias(torch.tensor([[True, False, True]]), torch.float32)
    weights = torch.softmax(torch.tensor([5.0, 50.0, 4.0]) + bias[0, 0, 0], dim=0)
    assert weights[1] == 0.0
    assert torch.isfinite(
        torch.softmax(attention_bias(torch.zeros(1, 3).bool(), torch.float16), 3)
    ).all()


def test_time_embedding():
    got = time_embedding(torch.tensor([1.0, 0.7, 0.1]), 64)
    expected = [time_features(t, 64) for t in np.float32([1.0, 0.7, 0.1]).astype(np.float64)]
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_random_weights_repeat_and_differ_by_seed(model):
    again, other = random_model(SMALL, seed=1), random_model(SMALL, seed=2)
    for (name, a), (_, b) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    assert not torch.equal(model.action_in_proj.weight, other.action_in_proj.weight)


def test_random_gates_are_open_at_every_time(model):
    with torch.no_grad():
        table = model.modulation(torch.linspace(0.1, 1.0, 10))
    scale, shift, gate = (part.abs().mean() for part in table.chunk(3, dim=-1))
    assert 0.1 < scale < 0.5
    assert 0.1 < shift < 0.5
    assert 0.3 < gate < 0.8
    assert table.std(dim=0).mean() > 0.1


def test_true_size_has_the_published_number_of_parameters():
    with torch.device('meta'):
        full = Pi05(PI05)

    def millions(*modules):
        return sum(p.numel() for m in modules for p in m.parameters()) / 1e6

    language = full.language_model
    adaptive = millions(*full.expert.norms())
    assert millions(full.vision_tower) == pytest.approx(412, abs=1)
    assert millions(full.multi_modal_projector) == pytest.approx(2.4, abs=0.1)
    assert millions(language.embed_tokens) == pytest.approx(527, abs=1)
    assert millions(full.expert) - adaptive == pytest.approx(311, abs=1)
    assert adaptive == pytest.approx(116.5, abs=0.1)
    assert millions(full.time_mlp_in, full.time_mlp_out) == pytest.approx(2.1, abs=0.1)
    # The last layer's MLP and second norm are never read, so the model does not have them.
    unread = (3 * 2048 * 16384 + 2048) / 1e6
    layers = millions(language) - millions(language.embed_tokens)
    assert layers + unread == pytest.approx(1982, abs=1)
