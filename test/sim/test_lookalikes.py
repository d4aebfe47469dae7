"""Scenes that only the prompt tells apart."""

import numpy as np
import pytest


def first_view(task, seed):
    from vla_trt_ros.sim.metaworld import MetaWorld

    env = MetaWorld(task, width=64, height=64)
    env.reset(seed)
    pictures, state = env.render(), env.observe().positions
    env.close()
    return pictures, state


@pytest.mark.parametrize('seed', [0, 900_000])
def test_reach_and_pick_place_begin_alike_to_the_pixel_and_push_does_not(seed, simulator):
    reach, pick_place, push = (first_view(t, seed) for t in ('reach', 'pick-place', 'push'))
    for view in ('base', 'wrist'):
        assert np.array_equal(reach[0][view], pick_place[0][view])
        assert reach[0][view].std() > 10
    assert np.array_equal(reach[1], pick_place[1])
    # Its goal lies on the table.
    assert not np.array_equal(reach[0]['base'], push[0]['base'])
