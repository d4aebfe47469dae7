import math

import numpy as np
import pytest

from vla_trt_ros.preprocess.crop import crop_corners, stretch


def test_the_box_alone_in_whole_pixels():
    assert crop_corners((10.2, 20.7, 30.1, 40.0), 100, 80) == (10, 20, 31, 40)


def test_with_a_margin_on_each_side():
    assert crop_corners((20, 20, 40, 60), 100, 80, 0.25) == (15, 10, 45, 70)


def test_it_ends_at_the_picture():
    assert crop_corners((-30, -5, 300, 90), 100, 80, 0.1) == (0, 0, 100, 80)


@pytest.mark.parametrize(
    'box',
    [
        (5, 5, 5, 5),
        (5, 5, 7.9, 40),
        (40, 5, 20, 40),
        (98, 5, 130, 40),
        (200, 200, 240, 240),
        (math.nan, 0, 10, 10),
        (0, 0, math.inf, 10),
    ],
    ids=['empty', 'narrow', 'reversed', 'mostly outside', 'outside', 'nan', 'inf'],
)
def test_nothing_to_see(box):
    assert crop_corners(box, 100, 80) is None


def test_the_crop_is_stretched_the_right_way_up():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:50] = (200, 0, 0)
    image[10:12, 30:34] = (0, 0, 250)
    crop = stretch(image, (30, 10, 50, 20), 8)
    assert crop.shape == (8, 8, 3)
    assert crop[0, 0].tolist() == pytest.approx([0, 0, 250], abs=60)
    assert crop[7, 7].tolist() == [200, 0, 0]
    assert crop[7, 0].tolist() == [200, 0, 0]


def test_a_shrunk_crop_is_the_mean_of_its_pixels():
    image = np.zeros((64, 64, 3), np.uint8)
    image[::2] = 200
    assert stretch(image, (0, 0, 64, 64), 16) == pytest.approx(100, abs=1)
