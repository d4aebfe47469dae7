"""Where a chunk would take the hand: the line that rviz and the picture of a run draw."""

from __future__ import annotations

import numpy as np

from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import ActionChunk, Float64Array, JointSample

EARLY, LATE = (0.15, 0.75, 0.35), (0.95, 0.55, 0.10)
"""Colours of the first and the last row, RGB 0 to 1."""


def tip_path(chunk: ActionChunk, robot: RobotConfig) -> Float64Array:
    """float64 [rows left, 3], m, in ``robot.frame``: the rows that were not over when the chunk
    was published. No rows where the robot file names no tip, or the chunk is of other joints.
    """
    if not robot.tip or not set(robot.tip) <= set(chunk.names):
        return np.empty((0, 3))
    columns = [chunk.names.index(name) for name in robot.tip]
    return np.asarray(chunk.actions[chunk.valid_from :, columns], np.float64)


def tip_at(sample: JointSample, robot: RobotConfig) -> Float64Array | None:
    """float64 [3], where the joint states have the hand; None as for `tip_path`."""
    if not robot.tip or not set(robot.tip) <= set(sample.names):
        return None
    return np.array([sample.positions[sample.names.index(name)] for name in robot.tip])


def row_colours(rows: int) -> Float64Array:
    """float64 [rows, 3], from EARLY to LATE."""
    share = np.linspace(0.0, 1.0, rows)[:, None] if rows > 1 else np.zeros((rows, 1))
    mixed: Float64Array = np.array(EARLY) + share * (np.array(LATE) - np.array(EARLY))
    return mixed
