"""The fast kernels say which networks they compute."""

import re
from dataclasses import replace

import pytest

from vla_trt_ros.policies.pi05.cuda.serves import refusal
from vla_trt_ros.policies.pi05.spec import PI05, ExpertConfig


@pytest.mark.parametrize('horizon', [10, 50])
def test_true_size_is_served(horizon):
    assert refusal(replace(PI05, horizon=horizon)) == ''


@pytest.mark.parametrize(
    ('config', 'reason'),
    [
        (replace(PI05, expert=ExpertConfig(160, 4096)), 'expert width 160 is not a multiple'),
        (replace(PI05, expert=ExpertConfig(1024, 384)), 'expert mlp 384 is not a multiple'),
        (replace(PI05, prefix=replace(PI05.prefix, heads=6)), r'heads \* head_dim 1536 is not'),
        (replace(PI05, prefix=replace(PI05.prefix, kv_heads=2)), 'kv_heads is 2'),
        (
            replace(PI05, prefix=replace(PI05.prefix, heads=4, head_dim=512)),
            'head_dim 512 is not 32, 64, 128 or 256',
        ),
        (replace(PI05, horizon=65), 'horizon 65 is longer than 64'),
        (replace(PI05, prefix=replace(PI05.prefix, width=2040)), 'prefix width 2040 is not'),
        (replace(PI05, action_dim=7), 'action_dim 7 is not 16, 32 or 64'),
    ],
)
def test_what_does_not_fit_is_named(config, reason):
    assert re.match(reason, refusal(config))
