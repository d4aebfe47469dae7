from dataclasses import replace

import pytest

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.policies.pi05.spec import (
    NANO,
    PI05,
    denoise_spec,
    denoise_step_spec,
    euler_times,
    prefix_spec,
    vision_spec,
)


def shapes(tensors):
    return {t.name: (t.shape, t.dtype) for t in tensors}


def test_true_size_boundaries():
    assert PI05.tokens_per_view == 256
    vision = vision_spec(PI05, 'float16')
    assert shapes(vision.inputs) == {'pixels': ((3, 3, 224, 224), 'float32')}
    assert shapes(vision.outputs) == {'image_tokens': ((1, 768, 2048), 'float16')}
    prefix = prefix_spec(PI05, 200, 'bfloat16')
    assert shapes(prefix.inputs) == {
        'image_tokens': ((1, 768, 2048), 'bfloat16'),
        'tokens': ((1, 200), 'int64'),
        'prefix_mask': ((1, 968), 'bool'),
    }
    cache = ((18, 1, 1, 968, 256), 'bfloat16')
    assert shapes(prefix.outputs) == {'keys': cache, 'values': cache}
    denoise = denoise_spec(PI05, 200, 'bfloat16')
    assert shapes(denoise.inputs) == {
        'noise': ((1, 50, 32), 'float32'),
        'keys': cache,
        'values': cache,
        'prefix_mask': ((1, 968), 'bool'),
    }
    assert shapes(denoise.outputs) == {'actions': ((1, 50, 32), 'float32')}
    step = denoise_step_spec(PI05, 200)
    assert shapes(step.inputs)['modulation'] == ((37, 3072), 'float32')
    assert shapes(step.outputs) == {'velocity': ((1, 50, 32), 'float32')}


@pytest.mark.parametrize('bucket', NANO.prompt_buckets)
def test_what_one_stage_writes_the_next_one_reads(bucket):
    vision, prefix, denoise = (
        vision_spec(NANO),
        prefix_spec(NANO, bucket),
        denoise_spec(NANO, bucket),
    )
    assert set(vision.outputs) < set(prefix.inputs)
    assert set(prefix.outputs) < set(denoise.inputs)
    assert prefix.inputs[-1] == denoise.inputs[-1]


def test_time_runs_from_one_towards_zero():
    assert euler_times(1) == (1.0,)
    assert euler_times(2) == (1.0, 0.5)
    assert euler_times(5) == pytest.approx((1.0, 0.8, 0.6, 0.4, 0.2))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'image_size': 113}, 'image_size 113 is not a multiple of patch 14'),
        ({'horizon': 0}, 'horizon 0 must be at least 1'),
        ({'views': ()}, 'views .* must be one or more different names'),
        ({'views': ('base', 'base')}, 'different names'),
        ({'prompt_buckets': (64, 32)}, r'prompt_buckets \[64, 32\] must rise'),
        ({'prompt_buckets': ()}, 'must rise'),
        ({'num_steps': (0, 1)}, r'num_steps \[0, 1\] must rise, from 1'),
        ({'num_steps': (2, 2)}, 'must rise'),
    ],
)
def test_wrong_sizes(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(NANO, **change)


@pytest.mark.parametrize(
    ('part', 'change', 'message'),
    [
        ('vision', {'heads': 5}, f'width {NANO.vision.width} is not a multiple of heads 5'),
        ('vision', {'depth': 0}, 'depth 0 must be at least 1'),
        ('prefix', {'kv_heads': 3}, 'heads 4 is not a multiple of kv_heads 3'),
        ('prefix', {'head_dim': 47}, 'head_dim 47 is odd'),
        ('expert', {'width': 127}, 'width 127 is odd'),
    ],
)
def test_wrong_sizes_of_a_part(part, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(getattr(NANO, part), **change)
