"""What is noted of every judged frame: the columns of per_frame.csv."""

from __future__ import annotations

from vla_trt_ros.config import RobotConfig

HORIZONS = (1, 5, 10)
"""Rows from the start of a chunk that errors are told over; 'all' is the whole chunk."""

_GRIPPER_WORDS = ('gripper', 'finger', 'knuckle')

FIXED = (
    'index',
    't',
    'start_ns',
    'block',
    'gripper_agreement',
    'clamp_rate',
    'limit_rate',
    'seam',
    'jerk',
    'jerk_recorded',
    'tip_error',
    'inference_ms',
    'latency_ms',
    'image_age_ms',
    'state_age_ms',
    'rows_over',
    'starved_ms',
    'compared_rows',
)
"""Behind these come those per joint."""


def horizon_names(horizon: int) -> dict[str, int]:
    """'h1', 'h5', ... and 'all' of a chunk of ``horizon`` rows -> their number of rows."""
    return {**{f'h{h}': h for h in HORIZONS if h <= horizon}, 'all': horizon}


def grippers(robot: RobotConfig) -> tuple[int, ...]:
    """Which joints open and close a hand: by name, or by the unit 'ratio' of a joint target."""
    return tuple(
        k
        for k, joint in enumerate(robot.joints)
        if any(word in joint.name for word in _GRIPPER_WORDS)
        or (joint.unit == 'ratio' and robot.action_space == 'joint_position')
    )


def columns(robot: RobotConfig, horizon: int) -> tuple[str, ...]:
    """Names of the columns, in their order."""
    names = robot.joint_names
    names_of_error = [f'{m}_{h}' for m in ('mae', 'mse') for h in horizon_names(horizon)]
    per_joint = [*names_of_error, 'seam', 'action', 'recorded']
    return (
        *FIXED,
        *names_of_error,
        *(f'{measure}.{joint}' for measure in per_joint for joint in names),
    )
