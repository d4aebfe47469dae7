"""FLOP and weights of the stages: published counts of the true size, files of the small one."""

from dataclasses import replace

import pytest

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import find_file
from vla_trt_ros.planning.work import denoise_work, kv_elements, prefix_work, vision_work
from vla_trt_ros.policies.pi05.spec import NANO, PI05


def with_views(count):
    return replace(PI05, views=PI05.views[:count])


@pytest.mark.parametrize(('views', 'gflop'), [(2, 440), (3, 661)])
def test_vision_work(views, gflop):
    assert round(vision_work(with_views(views)).flop / 1e9) == gflop


@pytest.mark.parametrize(
    ('views', 'prompt', 'tokens', 'gflop'),
    [(2, 48, 560, 2141), (2, 200, 712, 2737), (3, 48, 816, 3149), (3, 200, 968, 3756)],
)
def test_prefix_work(views, prompt, tokens, gflop):
    config = with_views(views)
    assert config.image_tokens + prompt == tokens
    assert round(prefix_work(config, prompt).flop / 1e9) == gflop


def test_weights_of_the_true_size():
    assert round(vision_work(PI05).weights / 1e6, 1) == 414.1
    assert round(prefix_work(PI05, 48).weights / 1e6, 1) == 1872.8
    assert round(denoise_work(PI05, 48, 10).weights / 1e6, 1) == 311.5
    assert prefix_work(PI05, 48).half_weights == pytest.approx(526.6e6, rel=2e-3)


@pytest.mark.parametrize(
    ('horizon', 'low', 'high'),
    [(10, 7.1, 7.7), (50, 35.7, 38.7)],  # GFLOP of a step at 560 and at 968 prefix tokens
)
def test_a_step(horizon, low, high):
    for views, prompt, gflop in ((2, 48, low), (3, 200, high)):
        work = denoise_work(replace(with_views(views), horizon=horizon), prompt, 10)
        assert work.flop / 1e9 == pytest.approx(gflop, abs=0.06)
        assert work.runs == 10


@pytest.mark.parametrize(
    ('views', 'prompt', 'megabytes'),
    [(2, 48, 10.3), (2, 200, 13.1), (3, 48, 15.0), (3, 200, 17.8)],
)
def test_keys_and_values(views, prompt, megabytes):
    assert round(2 * kv_elements(with_views(views), prompt) / 1e6, 1) == megabytes


def test_counts_are_those_of_the_files_of_nano():
    """Weights that the exporter wrote; some short vectors are folded, or inline."""
    bundle = open_bundle(find_file('bundles', 'nano', ''))
    large = 2 if 'weights_rounded_to' in bundle.manifest.notes else 4  # bytes; the rest has 4
    vision, prefix = vision_work(NANO), prefix_work(NANO, NANO.prompt_buckets[0])
    denoise = denoise_work(
        NANO, NANO.prompt_buckets[0], 12
    )  # 12 different times serve all step counts
    embeddings = NANO.vocab_size * NANO.prefix.width
    positions = NANO.tokens_per_view * NANO.vision.width
    for work, beside in ((vision, positions), (prefix, embeddings), (denoise, 0)):
        written = bundle.manifest.files[f'{work.stage}.weights'].bytes
        least = large * (work.weights + beside) + 4 * work.table
        assert least <= written <= 1.02 * (least + 4 * (work.half_weights - beside))


def test_a_longer_horizon_costs_flop_and_no_weights():
    short, long = (denoise_work(replace(PI05, horizon=h), 48, 1) for h in (10, 50))
    assert long.flop > 4.9 * short.flop
    assert long.weights == short.weights
