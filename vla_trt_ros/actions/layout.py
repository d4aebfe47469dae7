"""The policy's columns and the robot's joints: by name, in both directions."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import Float32Array, Float64Array, JointSample
from vla_trt_ros.errors import BadAction, BadState, ConfigError

ActionKind = Literal['absolute', 'delta']


def pick_joints(sample: JointSample, names: Sequence[str]) -> Float64Array:
    """Positions of ``names`` in that order: float64 [len(names)]; other joints are ignored.

    BadState: a name is missing or doubled, names and positions differ in number, NaN or Inf.
    """
    positions = np.asarray(sample.positions, dtype=np.float64)
    if positions.shape != (len(sample.names),):
        raise BadState(
            f'joint states name {len(sample.names)} joints but hold {positions.size} positions.'
        )
    index = {name: i for i, name in enumerate(sample.names)}
    if len(index) < len(sample.names):
        doubled = sorted({n for n in sample.names if sample.names.count(n) > 1})
        raise BadState(f'joint states name {doubled[0]!r} more than once.')
    missing = [n for n in names if n not in index]
    if missing:
        came = ', '.join(sample.names) or 'none'
        raise BadState(f'joint states lack {", ".join(missing)}; they name {came}.')
    picked: Float64Array = positions[[index[n] for n in names]]
    bad = np.flatnonzero(~np.isfinite(picked))
    if bad.size:
        raise BadState(f'joint state of {names[bad[0]]} is {picked[bad[0]]}.')
    return picked


class JointLayout:
    """Which joint each state and action column of a policy is, and whether an action is relative.

    ``state_names``: S joints, or readings where the robot lists any, the model's state columns.
    ``action_names``: A joints, the model's action columns; every joint of the robot once (A = D).
    ``action_kinds``: per action column, 'absolute', or 'delta' from the joint's position when the
    observation was made.

    ConfigError: an unknown or doubled name, a robot joint that no column commands, or a delta
    column whose joint is not in the state.
    """

    def __init__(
        self,
        robot: RobotConfig,
        state_names: tuple[str, ...],
        action_names: tuple[str, ...],
        action_kinds: tuple[ActionKind, ...],
    ) -> None:
        _check_names('state', state_names, robot.state_names, robot.name)
        _check_names('action', action_names, robot.joint_names, robot.name)
        uncommanded = [n for n in robot.joint_names if n not in action_names]
        if uncommanded:
            raise ConfigError(
                f'the policy commands no {uncommanded[0]!r} of robot {robot.name}; drop the joint '
                'from the robot file or use a policy that has it.'
            )
        if len(action_kinds) != len(action_names):
            raise ConfigError(f'{len(action_names)} actions but {len(action_kinds)} action kinds.')
        for name, kind in zip(action_names, action_kinds, strict=True):
            if kind not in ('absolute', 'delta'):
                raise ConfigError(f'action {name!r} is {kind!r}; use absolute or delta.')
            if kind == 'delta' and name not in state_names:
                raise ConfigError(
                    f'action {name!r} is a delta, but {name!r} is not in the state '
                    f'({", ".join(state_names)}): there is nothing to add it to.'
                )
        self.state_names = state_names
        self.joint_names = robot.joint_names
        self.action_names = action_names
        self._to_robot = np.array([action_names.index(n) for n in robot.joint_names])
        self._from_robot = np.array([robot.joint_names.index(n) for n in action_names])
        self._delta = np.array([k == 'delta' for k in action_kinds])
        self._base = np.array(
            [state_names.index(n) if n in state_names else 0 for n in action_names]
        )

    def to_model(self, sample: JointSample) -> Float32Array:
        """Joint states as the model's state: float32 [S], robot units, before normalisation.

        BadState as `pick_joints`.
        """
        return pick_joints(sample, self.state_names).astype(np.float32)

    def to_robot(self, actions: Float32Array, state: Float32Array) -> Float32Array:
        """The model's actions [H, A] as absolute positions float32 [H, D], robot joint order.

        ``state`` float32 [S] is what `to_model` gave for the same observation. BadAction: wrong
        shape, NaN or Inf.
        """
        rows = self._checked(actions, state, self.action_names) + self._offset(state)
        return rows[:, self._to_robot].astype(np.float32)

    def from_robot(self, positions: Float32Array, state: Float32Array) -> Float32Array:
        """The inverse of `to_robot`: positions [H, D] to the model's actions float32 [H, A]."""
        rows = self._checked(positions, state, self.joint_names)[:, self._from_robot]
        return (rows - self._offset(state)).astype(np.float32)

    def _offset(self, state: Float32Array) -> Float64Array:
        return np.where(self._delta, np.asarray(state, np.float64)[self._base], 0.0)

    def _checked(
        self, rows: Float32Array, state: Float32Array, names: tuple[str, ...]
    ) -> Float64Array:
        if np.shape(state) != (len(self.state_names),):
            raise BadAction(f'state has shape {np.shape(state)}, not ({len(self.state_names)},).')
        return check_rows(rows, names)


def check_rows(rows: Float32Array | Float64Array, names: Sequence[str]) -> Float64Array:
    """``rows`` as float64 [H, len(names)], H at least 1. BadAction: other shape, NaN or Inf."""
    checked = np.asarray(rows, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[1] != len(names) or checked.shape[0] < 1:
        raise BadAction(f'actions have shape {checked.shape}, not (rows, {len(names)}).')
    bad = np.argwhere(~np.isfinite(checked))
    if bad.size:
        row, column = bad[0]
        raise BadAction(f'action row {row} of {names[column]} is {checked[row, column]}.')
    return checked


def _check_names(
    what: str, names: tuple[str, ...], known: tuple[str, ...], robot_name: str
) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean {close[0]!r}?' if close else f'it has {", ".join(known)}.'
            raise ConfigError(f'{what} {name!r} is no joint of robot {robot_name}; {hint}')
        if names.count(name) > 1:
            raise ConfigError(f'{what} {name!r} is listed twice.')
