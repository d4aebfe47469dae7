"""Levels of pixels to the network's planes."""

import numpy as np
import pytest

from vla_trt_ros.preprocess.levels import SCALE, scale_planes


def test_planes_are_scaled_per_channel():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1] = 255, 51, 204
    planes = np.full((3, 2, 2), 9.0, np.float32)
    scale_planes(image, planes)
    np.testing.assert_allclose(planes[:, 0, 1], [1.0, -0.6, 0.6], atol=1e-6)
    assert (planes[:, 1] == -1.0).all()


@pytest.mark.parametrize('kind', ['read-only', 'reversed channels', 'rows with padding'])
def test_any_memory_order_gives_the_same_planes(kind):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    expected = SCALE[image].transpose(2, 0, 1)
    if kind == 'read-only':
        image.flags.writeable = False
    elif kind == 'reversed channels':
        image = np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1]
    else:
        image = np.pad(image, ((0, 0), (0, 3), (0, 0)))[:, :8]
    stack = np.full((2, 3, 8, 8), 9.0, np.float32)
    scale_planes(image, stack[1])
    np.testing.assert_array_equal(stack[1], expected)
    assert (stack[0] == 9.0).all()
