"""The parts of training/ that can be wrong without a GPU noticing."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="workshop only: pip install '.[export]'")

from vla_trt_ros.config import find_file, share_dir  # noqa: E402
from vla_trt_ros.policies.pi05.spec import (  # noqa: E402
    ExpertConfig,
    Pi05Config,
    PrefixConfig,
    VisionConfig,
)
from vla_trt_ros.sim.prompts import BENCHMARK_TASKS, prompts_for  # noqa: E402

TRAINING = Path(__file__).parents[2] / 'training'
TINY = Pi05Config(
    image_size=28,
    patch=14,
    views=('base', 'wrist'),
    vision=VisionConfig(width=16, depth=1, heads=2, mlp=16),
    prefix=PrefixConfig(width=24, depth=2, heads=2, kv_heads=1, head_dim=8, mlp=32),
    expert=ExpertConfig(width=16, mlp=16),
    vocab_size=1024,
    prompt_buckets=(24,),
    horizon=3,
    action_dim=8,
)


@pytest.fixture(autouse=True)
def training_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TRAINING))


@pytest.fixture
def prompts():
    from tokens import PromptTable

    vocabulary = (find_file('bundles', 'nano', '') / 'tokenizer.model').read_bytes()
    return PromptTable(vocabulary, BENCHMARK_TASKS, 24, 1024)


@pytest.fixture
def model(prompts):
    from network import fresh_model

    return fresh_model(TINY, prompts.number_tokens, seed=1)


def batch(prompts, size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(size, 2, 3, 28, 28, generator=generator) * 2 - 1
    state = torch.rand(size, 4, generator=generator) * 2 - 1
    tokens, mask = prompts.canonical(torch.arange(size) % 7, state)
    return pixels, tokens, mask


def test_recipe_is_what_the_bundle_was_made_with():
    from recipe import NETWORK

    from vla_trt_ros.bundle import open_bundle
    from vla_trt_ros.policies.pi05.engines import read_config

    assert read_config(open_bundle(share_dir() / 'bundles' / 'nano')) == NETWORK


def test_tokens_are_those_of_the_policy(prompts):
    state = np.array([-1.7, -0.31, 0.5, 1.3], np.float32)  # beyond both ends, too
    for row, task in enumerate(BENCHMARK_TASKS):
        prompts.check(task, row, state)
    with pytest.raises(AssertionError, match='differ'):
        prompts.check('reach', 1, state)  # row 1 is push


def test_every_phrasing_is_drawn_and_fits(prompts):
    tasks = torch.full((400,), BENCHMARK_TASKS.index('push'))
    tokens, mask = prompts.draw(tasks, torch.zeros(400, 4))
    assert len({tuple(row.tolist()) for row in tokens}) == len(prompts_for('push'))
    assert max(prompts.counts) <= 24
    assert (tokens[~mask] == 0).all()


def test_a_batch_gives_what_its_observations_give_alone(model, prompts):
    from network import sample

    pixels, tokens, mask = batch(prompts)
    torch.nn.init.normal_(model.action_out_proj.weight)
    noise = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(3))
    together = sample(model, pixels, tokens, mask, noise, 2)
    for i in range(4):
        full = torch.cat((torch.ones(1, 8, dtype=torch.bool), mask[i : i + 1]), dim=1)
        with torch.inference_mode():
            alone = model.sample_actions(pixels[i], tokens[i : i + 1], full, noise[i : i + 1], 2)
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=1e-4)


def test_loss_at_the_truth_is_zero_and_learning_lowers_it(model, prompts):
    from network import draw_times, flow_loss

    torch.manual_seed(0)
    pixels, tokens, mask = batch(prompts)
    actions, noise = torch.rand(4, 3, 4), torch.randn(8, 3, 4)
    # The last layer begins at zero, so the first loss is the variance of what is to be learnt.
    first = flow_loss(model, pixels, tokens, mask, actions, noise, draw_times(8, noise.device))
    expected = (noise - actions.repeat_interleave(2, 0)).square().mean()
    torch.testing.assert_close(first, expected)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        noise = torch.randn(8, 3, 4)
        loss = flow_loss(model, pixels, tokens, mask, actions, noise, draw_times(8, noise.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5 * first


def test_times_are_beta_distributed():
    from network import draw_times

    torch.manual_seed(0)
    times = draw_times(20_000, torch.device('cpu'))
    assert times.min() >= 0.001
    assert times.max() <= 1.0
    assert times.mean() == pytest.approx(0.6, abs=0.01)  # of Beta(1.5, 1): 1.5 / 2.5


def test_padding_is_deaf_and_mute_in_the_end(model, prompts):
    from network import clear_padding, sample

    torch.nn.init.normal_(model.action_out_proj.weight)
    weights = model.state_dict()
    clear_padding(weights, columns=4)
    model.load_state_dict(weights)
    pixels, tokens, mask = batch(prompts)
    noise = torch.randn(4, 3, 8)
    louder = noise.clone()
    louder[..., 4:] += 5.0
    one, two = (sample(model, pixels, tokens, mask, n, 3) for n in (noise, louder))
    torch.testing.assert_close(one[..., :4], two[..., :4])
    torch.testing.assert_close(two[..., 4:], louder[..., 4:])


def test_store_keeps_the_newest(tmp_path):
    from store import FrameStore

    def episode(first, count):
        values = np.arange(first, first + count)
        return {
            'images': np.broadcast_to(
                values[:, None, None, None, None], (count, 2, 4, 4, 3)
            ).astype(np.uint8),
            'state': np.repeat(values[:, None], 4, 1).astype(np.float32),
            'label': np.zeros((count, 3, 4), np.float32),
            'task': np.int64(2),
        }

    store = FrameStore(10, 2, 4, 3, torch.device('cpu'))
    store.add(episode(0, 6))
    store.add(episode(6, 4))
    store.add(episode(10, 5))
    assert (store.count, store.added) == (10, 15)
    drawn = store.draw(500)
    assert set(drawn.state[:, 0].int().tolist()) == {5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
    torch.testing.assert_close(drawn.images[:, 1, 3, 3, 2].float(), drawn.state[:, 0])
    assert (drawn.task == 2).all()


def test_deltas_are_from_the_state_but_not_the_grippers():
    from store import relative

    label = torch.tensor([[[0.1, 0.6, 0.2, 1.0], [0.2, 0.6, 0.2, 0.0]]])
    state = torch.tensor([[0.1, 0.5, 0.3, 0.7]])
    expected = torch.tensor([[[0.0, 0.1, -0.1, 1.0], [0.1, 0.1, -0.1, 0.0]]])
    torch.testing.assert_close(relative(label, state), expected)


def test_augmentation_moves_pictures_by_whole_pixels_and_no_further():
    from recipe import Recipe
    from store import Augmentation

    torch.manual_seed(0)
    images = torch.zeros(50, 2, 20, 20, 3, dtype=torch.uint8)
    images[:, :, 10, 10] = 255
    out = Augmentation(Recipe(shift=3, brightness=0.0, contrast=0.0, colour=0.0))(images)
    places = (out > 0).nonzero()
    assert out.shape == (50, 2, 3, 20, 20)
    assert len(places) == 50 * 2 * 3
    assert set(places[:, 3].tolist()) == set(range(7, 14))
    assert len({tuple(p[[3, 4]].tolist()) for p in places}) > 20  # each view on its own
