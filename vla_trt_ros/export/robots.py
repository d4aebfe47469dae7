"""Layout and statistics of robots that have no data set yet."""

from __future__ import annotations

from typing import Literal

import numpy as np

from vla_trt_ros.bundle import ActionColumn, Layout
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.preprocess.normalize import NormStats


def default_layout(robot: RobotConfig, actions: Literal['absolute', 'delta'] = 'delta') -> Layout:
    """All readings as state, or all joints where there are none; grippers and controller inputs
    absolute, every other joint as ``actions`` says.
    """
    columns = tuple(
        ActionColumn(j.name, 'absolute' if j.unit == 'ratio' else actions) for j in robot.joints
    )
    return Layout(robot.name, 1.0 / robot.control_rate, robot.state_names, columns)


def plausible_stats(robot: RobotConfig) -> dict[str, NormStats]:
    """Ranges that a robot's own limits suggest, for a policy with random weights.

    State: the middle of each joint's range. Deltas: as far as the velocity limit allows in a
    quarter of a second. Real statistics come from data.
    """
    state, actions = [], []
    for joint in robot.joints:
        if joint.unit == 'ratio':
            state.append((joint.lower, joint.upper))
            actions.append((joint.lower, joint.upper))
        else:
            reach = joint.upper - joint.lower
            state.append((joint.lower + 0.15 * reach, joint.upper - 0.15 * reach))
            travel = 0.25 * joint.max_velocity
            actions.append((-travel, travel))
    if robot.readings:
        state = [(r.lower, r.upper) for r in robot.readings]
    return {'state': _uniform(state), 'actions': _uniform(actions)}


def _uniform(ranges: list[tuple[float, float]]) -> NormStats:
    """Statistics of values spread evenly over each range."""
    low, high = np.array(ranges).T
    # The quantiles leave one percent out at either end.
    margin = (high - low) / 98.0
    full = high - low + 2 * margin
    return NormStats((low + high) / 2.0, full / np.sqrt(12.0), low, high)
