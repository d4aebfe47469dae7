"""PyTorch's twin that engines are timed against: the same network, stage by stage."""

import pytest

torch = pytest.importorskip('torch', reason="needs the export extra: pip install '.[export]'")

from vla_trt_ros.export.pi05.baseline import Baseline  # noqa: E402 - needs torch
from vla_trt_ros.policies.pi05.spec import NANO  # noqa: E402


@pytest.fixture(scope='module')
def twin():
    torch.set_num_threads(1)
    return Baseline(NANO, bucket=24, prompt_tokens=9, device='cpu', mode='pytorch')


@torch.no_grad()
def test_the_timed_pieces_make_the_whole_network(twin):
    marks = []
    actions = twin.sample(3, lambda: marks.append(1))
    whole = twin.model.sample_actions(twin._pixels, twin._tokens, twin._mask, twin._noise, 3)
    assert len(marks) == 4
    assert torch.equal(actions, whole)
    assert actions.shape == (1, NANO.horizon, NANO.action_dim)


@torch.no_grad()
def test_padding_of_the_prompt_is_masked(twin):
    before = twin.sample(1)
    twin._tokens[:, 9:] = 7
    assert torch.equal(twin.sample(1), before)
    twin._tokens[:, :9] = 7
    assert not torch.equal(twin.sample(1), before)


@pytest.mark.alone
def test_stages_add_up_and_more_steps_take_longer(twin):
    one, ten = (twin.measure(steps, 3, warm_up=1) for steps in (1, 10))
    assert one.n == 3
    assert one.precision == 'fp32'
    assert one.total_ms <= one.p99_ms
    assert one.vision_ms + one.prefix_ms + one.denoise_ms == pytest.approx(one.total_ms, rel=0.3)
    assert ten.denoise_ms > 3 * one.denoise_ms
