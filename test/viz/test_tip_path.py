"""The path of a chunk: rows that are left, columns of the tip, in its order."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import joints

from vla_trt_ros.config import load_robot
from vla_trt_ros.datatypes import ActionChunk
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.viz.tip_path import EARLY, LATE, row_colours, tip_at, tip_path

ROBOT = load_robot('metaworld')
NAMES = ('gripper', 'hand_z', 'hand_x', 'hand_y')
ROWS = np.arange(20, dtype=np.float32).reshape(5, 4)
CHUNK = ActionChunk(10**12, 10**12, 50_000_000, NAMES, ROWS, valid_from=2)


def test_rows_that_are_left_in_the_order_of_the_tip():
    assert np.array_equal(tip_path(CHUNK, ROBOT), ROWS[2:, [2, 3, 1]])
    assert tip_path(replace(CHUNK, valid_from=5), ROBOT).shape == (0, 3)


def test_robot_without_a_tip_and_other_joints_have_no_path():
    assert tip_path(CHUNK, replace(ROBOT, tip=())).shape == (0, 3)
    assert tip_path(replace(CHUNK, names=('a', 'b', 'c', 'd')), ROBOT).shape == (0, 3)
    assert tip_at(joints(10**12, a=1.0), ROBOT) is None


def test_hand_by_name():
    sample = joints(10**12, hand_z=0.3, other=9.0, hand_x=0.1, hand_y=0.2)
    assert tip_at(sample, ROBOT).tolist() == [0.1, 0.2, 0.3]


def test_colours_go_from_early_to_late():
    colours = row_colours(3)
    assert np.allclose(colours[0], EARLY)
    assert np.allclose(colours[-1], LATE)
    assert row_colours(1).shape == (1, 3)


@pytest.mark.parametrize('tip', [('hand_x', 'hand_y'), ('hand_x', 'hand_y', 'foot')])
def test_tip_that_is_none_is_refused(tip):
    with pytest.raises(ConfigError, match='must be three of the joints'):
        replace(ROBOT, tip=tip)
