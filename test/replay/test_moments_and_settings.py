"""The worst moments of many frames, and which settings are compared with which."""

import base64
import io
import math
from dataclasses import replace

import numpy as np
import pytest
from parts_on_disk import part
from PIL import Image
from recordings import MS, ROBOT, T0, pair, pipeline

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import find_file, load_platform
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.replay.drive import Drive
from vla_trt_ros.replay.judge import Judged
from vla_trt_ros.replay.moments import WorstMoments, moments_of
from vla_trt_ros.replay.settings import all_settings, reference_of

NANO = open_bundle(find_file('bundles', 'nano', ''))
CPU = load_platform('cpu')


@pytest.fixture(scope='module')
def tick():
    (found,) = [t for _, t in Drive(pipeline()).run(iter(pair(T0))) if t is not None]
    return found


def judged(tick, t, error, joint=1):
    recorded = tick.result.chunk.actions.astype(np.float64)
    recorded[:, joint] += error * 4
    recorded[-1] = math.nan
    return Judged(
        replace(tick, now_ns=T0 + round(t * 1000) * MS), {'t': t, 'mae_all': error}, recorded
    )


def test_the_worst_of_each_two_seconds_and_no_more_than_ten(tick):
    worst = WorstMoments(ROBOT)
    rng = np.random.default_rng(0)
    errors = rng.permutation(600) / 1000.0
    for k, error in enumerate(errors):
        worst.offer(judged(tick, 0.1 * k + 0.01, error))
    worst.offer(judged(tick, 61.0, math.nan))
    found = worst.as_json()
    expected = sorted((errors[20 * w : 20 * w + 20].max() for w in range(30)), reverse=True)[:10]
    assert [m['error'] for m in found] == pytest.approx(expected)


def test_a_moment_has_pictures_and_its_worst_joint(tick):
    worst = WorstMoments(ROBOT)
    worst.offer(judged(tick, 3.0, 0.01, joint=2))
    (data,) = worst.as_json()
    assert data['joint'] == 'hand_z'
    assert data['recorded'][-1] is None
    assert data['prompt'] == 'reach the goal'
    picture = Image.open(io.BytesIO(base64.b64decode(data['pictures']['wrist'])))
    assert picture.size == (6, 4)
    ((k, moment),) = moments_of([[part(mae_h1=[0.0], moments=[data])]])
    assert k == 0
    assert moment.bag == 'bag'
    assert math.isnan(moment.recorded[-1])
    np.testing.assert_allclose(moment.recorded[:-1] - moment.actions[:-1], 0.04, atol=1e-6)


def test_settings_that_fail_together_show_once(tick):
    def moment(t, error):
        worst = WorstMoments(ROBOT)
        worst.offer(judged(tick, t, error))
        return worst.as_json()

    first = part(mae_h1=[0.0], moments=[*moment(3.0, 0.2), *moment(9.0, 0.1)])
    second = part(mae_h1=[0.0], moments=moment(3.5, 0.3))
    found = moments_of([[first], [second]])
    assert [(k, m.error) for k, m in found] == [(1, 0.3), (0, 0.1)]


def test_every_combination_is_a_setting_and_the_first_is_the_reference():
    settings = all_settings([NANO], CPU, ['fp32', 'int8'], [10, 1])
    assert [s.name for s in settings] == [
        'nano fp32 10 steps',
        'nano fp32 1 step',
        'nano int8 10 steps',
        'nano int8 1 step',
    ]
    assert settings[2].slug == 'nano-int8-10-steps'
    assert reference_of(settings[0], settings) is None
    assert all(reference_of(s, settings) is settings[0] for s in settings[1:])


def test_another_bundle_is_the_reference_of_its_own_kind():
    twin = replace(NANO, sha256='0' * 64)
    settings = all_settings([NANO, twin], CPU, ['fp32'], [10, 1])
    assert [s.name for s in settings][2] == 'nano@00000000 fp32 10 steps'
    assert [reference_of(s, settings) for s in settings] == [settings[2], settings[3], None, None]


def test_what_is_no_setting():
    with pytest.raises(ConfigError, match='nano fp32 10 steps is asked for twice'):
        all_settings([NANO], CPU, ['fp32'], [10, 10])
    with pytest.raises(ConfigError, match='--steps is empty'):
        all_settings([NANO], CPU, [], [])
    with pytest.raises(ConfigError, match='num_steps 7'):
        all_settings([NANO], CPU, [], [7])
