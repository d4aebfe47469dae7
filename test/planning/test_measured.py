"""Shares made of benchmark records: floor over measured time."""

from dataclasses import asdict, replace

import pytest

from vla_trt_ros.cli.bench_record import Record
from vla_trt_ros.config import load_platform
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.planning.devices import find_device
from vla_trt_ros.planning.measured import shares_from
from vla_trt_ros.planning.roofline import make_plan
from vla_trt_ros.policies.pi05.spec import PI05

RECORD = Record(
    hardware='a robot computer',
    backend='tensorrt',
    precision='fp16 + fp8 + bf16',
    views=3,
    prompt_tokens=40,
    horizon=50,
    steps=1,
    e2e_total_ms=84.0,
    vision_ms=17.26,
    prefix_ms=52.14,
    denoise_ms=10.1,
    hz=12.0,
    p50_ms=84.0,
    p99_ms=90.0,
    n=500,
    clock='infer()',
    bundle='big',
    camera='640x480',
    preprocess_ms=1.0,
)


def plan_of(tokens, steps):
    platform = load_platform('thor')
    return make_plan(
        PI05,
        platform,
        find_device('', platform.target),
        network='pi05',
        prompt_tokens=tokens,
        steps=steps,
    )


def shares(*records):
    return shares_from([asdict(r) for r in records], plan_of, 'bench.json')


def test_a_share_is_floor_over_measured_time():
    found = shares(RECORD)
    for stage in plan_of(40, 1).stages:
        measured = getattr(RECORD, f'{stage.stage}_ms')
        assert found.share(stage.stage) == pytest.approx(stage.floor_ms / measured)


def test_several_records_weigh_by_their_time():
    ten = replace(RECORD, steps=10, denoise_ms=97.69)
    one, three = plan_of(40, 1).stages[2].floor_ms, plan_of(40, 10).stages[2].floor_ms
    assert shares(RECORD, ten).denoise == pytest.approx((one + three) / (10.1 + 97.69))


def test_each_record_is_held_to_the_floor_of_its_own_prompt():
    short, long = shares(RECORD), shares(replace(RECORD, prompt_tokens=200))
    assert long.prefix > short.prefix
    assert long.vision == short.vision


def test_the_source_says_what_was_measured():
    text = shares(RECORD, replace(RECORD, steps=3)).source
    assert text == (
        'a robot computer, tensorrt fp16 + fp8 + bf16, 3 views, 40 prompt tokens, horizon 50, '
        'steps 1, 3, n = 500'
    )


def test_a_baseline_in_the_same_file_does_not_count():
    theirs = replace(RECORD, implementation='our network in PyTorch, eager', vision_ms=0.1)
    assert shares(theirs, RECORD) == shares(RECORD)


def test_records_of_before_implementations_were_named_are_ours():
    old = asdict(RECORD)
    del old['implementation']
    assert shares_from([old], plan_of, 'bench.json') == shares(RECORD)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'precision': 'fp8'}, 'record 1 is of a robot computer tensorrt fp8, another of'),
        ({'views': 2}, 'record 1: measured with views 2, planned with 3; plan what was measured'),
        ({'horizon': 10}, 'horizon 10, planned with 50; plan what was measured: --horizon 10'),
        ({'prefix_ms': 1.0}, 'prefix 6.91501 is no share'),
        ({'vision_ms': 0.0}, 'record 1: vision_ms 0.0 must be above 0'),
        ({'denoise_ms': 'fast'}, "record 1: denoise_ms: expected float, found 'fast'"),
        ({'prompt_tokens': 300}, '300 prompt tokens: pi05 takes 1 to 200'),
    ],
)
def test_records_that_do_not_fit_are_refused(change, message):
    fast = {'prefix_ms': 1.0} if 'prefix_ms' in change else {}
    records = [asdict(RECORD) | fast, asdict(RECORD) | change]
    with pytest.raises(ConfigError, match=message):
        shares_from(records, plan_of, 'bench.json')


@pytest.mark.parametrize(
    ('records', 'message'),
    [
        ([], 'bench.json: holds no records of ours'),
        ([{'implementation': 'a peer'}], 'bench.json: holds no records of ours'),
        ([0.6, 0.5], 'record 0: expected a mapping'),
        ([{'vision_ms': 3.0}], "record 0: 'hardware' is missing"),
    ],
)
def test_what_is_no_benchmark_is_refused(records, message):
    with pytest.raises(ConfigError, match=message):
        shares_from(records, plan_of, 'bench.json')
