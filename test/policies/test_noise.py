"""One sequence of noise a seed, whenever it is drawn."""

import numpy as np
import pytest
from observations import observe

from vla_trt_ros.datatypes import CameraFrame
from vla_trt_ros.errors import BadImage, BadPrompt
from vla_trt_ros.policies.pi05.noise import Noise

SHAPE = (10, 32)


def wanted(seed, count):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(SHAPE, dtype=np.float32) for _ in range(count)]


@pytest.mark.parametrize('ahead', ['', '01234', '113', '4400'])
def test_drawing_ahead_changes_nothing(ahead):
    noise, found = Noise(SHAPE, 5), []
    for i in range(5):
        for _ in range(ahead.count(str(i))):
            noise.draw_ahead()
        found.append(noise.take().copy())
    np.testing.assert_array_equal(found, wanted(5, 5))


def test_a_seed_begins_anew_though_noise_was_drawn_ahead():
    noise = Noise(SHAPE, 5)
    noise.take()
    noise.draw_ahead()
    noise.reseed(6)
    np.testing.assert_array_equal(noise.take(), wanted(6, 1)[0])


def test_a_policy_takes_the_sequence_whatever_fails_between(policy):
    policy.reseed(11)
    drawn = wanted(11, 4)

    def taken():
        return policy._engines.noise[0].copy()

    policy.infer(observe(), num_steps=1)
    np.testing.assert_array_equal(taken(), drawn[0])
    own = np.full(SHAPE, 0.5, np.float32)
    policy.infer(observe(), num_steps=1, noise=own)
    np.testing.assert_array_equal(taken(), own)
    with pytest.raises(BadPrompt):
        policy.infer(observe(prompt=' '), num_steps=1)
    np.testing.assert_array_equal(policy.network_inputs(observe())['noise'][0], drawn[1])
    broken = CameraFrame(1, 1, '', 'jpeg', 0, 0, 0, np.ones(20, np.uint8))
    with pytest.raises(BadImage):
        policy.infer(observe(base=broken), num_steps=1)  # drawn[2] was for this one
    policy.infer(observe(), num_steps=1)
    np.testing.assert_array_equal(taken(), drawn[3])
