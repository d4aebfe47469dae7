"""Floors against the table they were first published in, and how they are made."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vla_trt_ros.config import STAGES, StageChoice, load_platform
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.planning.devices import DEVICES, find_device
from vla_trt_ros.planning.efficiency import Efficiency
from vla_trt_ros.planning.roofline import WEIGHT_BYTES, make_plan
from vla_trt_ros.policies.pi05.spec import NANO, PI05

TARGET = {d.name: d.target for d in DEVICES}


def plan(device='thor', precision='fp8', views=2, tokens=48, steps=10, config=PI05, **more):
    """``precision``: one for all stages, or a tuple of three."""
    each = (precision,) * 3 if isinstance(precision, str) else precision
    platform = replace(
        load_platform('cpu'),
        target=TARGET[device],
        **{s: StageChoice('tensorrt', p) for s, p in zip(STAGES, each, strict=True)},
    )
    return make_plan(
        replace(config, views=config.views[:views]),
        platform,
        find_device(device, platform.target),
        network='pi05',
        prompt_tokens=tokens,
        steps=steps,
        **more,
    )


@pytest.mark.parametrize(
    ('device', 'precision', 'views', 'tokens', 'floors'),
    [
        ('h200', 'bf16', 2, 48, (3.4, 3.7, 4.7)),
        ('h200', 'bf16', 3, 200, (5.7, 6.0, 7.1)),
        ('h200', 'fp8', 2, 48, (1.8, 1.9, 2.5)),
        ('h200', 'fp8', 3, 200, (3.0, 3.2, 3.7)),
        ('thor', 'fp8', 2, 48, (9.6, 12.0, 20.2)),
        ('thor', 'fp8', 3, 200, (10.0, 12.4, 20.8)),
        ('thor', 'nvfp4', 2, 48, (5.4, 6.8, 11.5)),
        ('thor', 'nvfp4', 3, 200, (5.5, 6.9, 11.8)),
        ('orin', 'int8', 2, 48, (31.9, 35.1, 46.1)),
        ('orin', 'int8', 3, 200, (53.6, 56.8, 68.0)),
        ('orin', 'bf16', 2, 200, (77.9, 84.1, 105.8)),
        ('rtx5090', 'bf16', 2, 48, (12.6, 13.4, 15.8)),
        ('rtx5090', 'fp8', 3, 48, (9.3, 9.6, 10.9)),
        ('rtx5090', 'nvfp4', 3, 200, (2.7, 3.0, 3.7)),
        ('rtx4090', 'bf16', 3, 200, (27.4, 28.7, 33.1)),
        ('rtx4090', 'int8', 2, 48, (4.2, 4.9, 7.1)),
    ],
)
def test_published_floors(device, precision, views, tokens, floors):
    for steps, floor in zip((1, 3, 10), floors, strict=True):
        for horizon in (10, 50):
            made = plan(device, precision, views, tokens, steps, replace(PI05, horizon=horizon))
            assert round(made.floor_ms, 1) == floor


def test_a_floor_is_the_larger_of_compute_and_memory():
    vision, prefix, denoise = plan('h200', 'bf16').stages
    assert (vision.bound, prefix.bound, denoise.bound) == ('compute', 'compute', 'memory')
    assert prefix.floor_ms == prefix.compute_ms == pytest.approx(2141.2 / 790, rel=1e-3)
    assert denoise.floor_ms == denoise.memory_ms
    assert denoise.memory_ms == pytest.approx(10 * (2 * 311.5e6 + 10.32e6) / 4.3e9, rel=1e-3)
    assert plan('thor', 'fp8').stages[1].bound == 'memory'


def test_each_stage_has_its_own_precision():
    mixed, fp8, bf16 = (plan(precision=p) for p in (('fp16', 'fp8', 'bf16'), 'fp8', 'bf16'))
    assert mixed.precision == 'fp16/fp8/bf16'
    assert fp8.precision == 'fp8'
    assert mixed.stages[1] == fp8.stages[1]
    assert mixed.stages[2] == bf16.stages[2]
    assert mixed.stages[0].floor_ms == bf16.stages[0].floor_ms


def test_the_prompt_runs_in_the_shortest_bucket_that_holds_it():
    short, exact, over = (plan(tokens=n) for n in (17, 48, 49))
    assert (short.prompt_bucket, exact.prompt_bucket, over.prompt_bucket) == (48, 48, 112)
    assert short.floor_ms == exact.floor_ms < over.floor_ms
    assert (short.prompt_tokens, short.prefix_tokens) == (17, 560)


def test_memory_of_the_true_size():
    made = plan('thor', 'fp8')
    memory = made.memory
    assert memory.weights == sum(s.engine_bytes for s in made.stages)
    assert made.stages[1].engine_bytes - memory.embeddings == pytest.approx(1.873e9, rel=1e-3)
    quantised = 414.107e6 + 1872.757e6 + 311.493e6
    assert memory.embeddings == 2 * 257152 * 2048
    assert memory.weights == pytest.approx(quantised + memory.embeddings, rel=2e-3)
    assert memory.kv_cache == 18 * 2 * 560 * 256 * 2
    assert 560 * (3 * 16384) * 2 < memory.activations < 80e6
    assert memory.total == memory.weights + memory.kv_cache + memory.activations


def test_engines_that_were_built_hold_what_was_planned():
    file = Path(__file__).parents[2] / 'benchmarks' / 'build-pi05-sm120.json'
    built = json.loads(file.read_text())['engines']
    assert {(e['stage'], e['precision']) for e in built} >= {(s, 'bf16') for s in STAGES}
    for engine in (e for e in built if e['precision'] in ('bf16', 'fp8')):
        tokens, steps = engine['prompt_tokens'] or 200, engine['steps'] or 10
        made = plan('rtx5090', engine['precision'], tokens=tokens, steps=steps)
        (stage,) = (s for s in made.stages if s.stage == engine['stage'])
        assert stage.engine_bytes == pytest.approx(engine['weights_bytes'], rel=0.02)
        assert engine['activation_bytes'] < 1.25 * made.memory.activations


def test_weights_shrink_with_the_precision_and_embeddings_do_not():
    sizes = {p: plan('rtx5090', p).memory for p in ('bf16', 'fp8', 'int8', 'int4', 'nvfp4')}
    rest = {p: m.weights - 2598.36e6 * WEIGHT_BYTES[p] for p, m in sizes.items()}
    assert max(rest.values()) - min(rest.values()) < 1e5
    assert sizes['int4'].weights < sizes['nvfp4'].weights < sizes['int8'].weights
    assert sizes['int8'] == sizes['fp8']
    assert len({m.embeddings for m in sizes.values()}) == 1


def test_float32_keeps_activations_keys_and_values_in_float32():
    half, full = (plan('h200', p) for p in ('bf16', 'fp32'))
    assert full.memory.kv_cache == 2 * half.memory.kv_cache
    assert full.memory.weights == pytest.approx(2 * half.memory.weights, rel=1e-2)
    assert full.stages[2].read_bytes == 2 * half.stages[2].read_bytes


def test_int4_is_stored_small_and_computed_in_half():
    int4, bf16 = (plan('orin', p) for p in ('int4', 'bf16'))
    for a, b in zip(int4.stages, bf16.stages, strict=True):
        assert a.compute_ms == b.compute_ms
    assert int4.stages[2].floor_ms < 0.3 * bf16.stages[2].floor_ms


def test_stored_bytes_are_those_of_the_exporters_table():
    from vla_trt_ros.export.precision import PRECISIONS

    bits = {'float32': 32, 'float16': 16, 'bfloat16': 16, 'float8_e4m3fn': 8, 'int8': 8}
    bits |= {'int4': 4, 'float4_e2m1fn': 4}
    assert set(PRECISIONS) == set(WEIGHT_BYTES)
    for name, row in PRECISIONS.items():
        scales = 8 * WEIGHT_BYTES[name] - bits[row.weights]
        assert scales == {'int4': 16 / 128, 'nvfp4': 8 / 16}.get(name, 0)
        if scales:
            assert f'block of {128 if name == "int4" else 16} ' in row.scales


def test_shares_make_a_prediction():
    shares = Efficiency(vision=0.5, prefix=0.25, denoise=1.0)
    made = plan(efficiency=shares)
    vision, prefix, denoise = made.stages
    assert vision.predicted_ms == 2 * vision.floor_ms
    assert prefix.predicted_ms == 4 * prefix.floor_ms
    assert denoise.predicted_ms == denoise.floor_ms
    assert made.predicted_ms == vision.predicted_ms + prefix.predicted_ms + denoise.predicted_ms
    assert made.floor_ms == plan().floor_ms
    assert plan().predicted_ms is None


def test_shares_of_a_first_engine_predict_its_other_step_counts():
    """Published by this project before: Thor, FP16 vision, FP8 prefix, BF16 loop, 2 views.
    Shares are taken at one step; nothing outside the engines is in them.
    """
    precision = ('fp16', 'fp8', 'bf16')
    measured = {'vision': 17.26, 'prefix': 52.14, 'denoise': 10.10}
    shares = Efficiency(
        **{
            s.stage: s.floor_ms / measured[s.stage]
            for s in plan('thor', precision, steps=1).stages
        }
    )
    for steps, ms in ((3, 17.22 + 52.14 + 29.38), (10, 17.26 + 52.13 + 97.69)):
        made = plan('thor', precision, steps=steps, efficiency=shares)
        assert made.predicted_ms == pytest.approx(ms, rel=0.03)


def test_any_size_is_planned():
    made = plan('orin', 'int8', config=NANO, tokens=11)
    short = NANO.prompt_buckets[0]
    assert (made.prompt_bucket, made.horizon) == (short, NANO.horizon)
    assert made.prefix_tokens == NANO.image_tokens + short
    assert made.memory.weights < 12e6
    assert 0 < made.floor_ms < 0.5


@pytest.mark.parametrize(
    ('what', 'message'),
    [
        ({'tokens': 201}, '201 prompt tokens: pi05 takes 1 to 200'),
        ({'tokens': 0}, '0 prompt tokens: pi05 takes 1 to 200'),
        ({'steps': 0}, '0 steps: one at least'),
        (
            {'device': 'h200', 'precision': 'int8'},
            'device h200: its int8 peak is not known; choose of fp32, fp16, bf16, int4, fp8, or',
        ),
        ({'device': 'orin', 'precision': 'fp8'}, 'vision: fp8 does not run on sm_87; choose of'),
        ({'device': 'rtx4090', 'precision': 'nvfp4'}, 'vision: nvfp4 does not run on sm_89'),
        ({'views': 0}, r'views \[\] must be one or more'),
    ],
)
def test_what_cannot_be_planned_is_refused(what, message):
    with pytest.raises(ConfigError, match=message):
        plan(**what)
