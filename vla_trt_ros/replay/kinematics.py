"""Where the tip of an arm is, from its URDF and joint positions: a chain of joints, no library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from vla_trt_ros.datatypes import Float64Array
from vla_trt_ros.errors import ConfigError

_MOVING = ('revolute', 'continuous', 'prismatic')


@dataclass(frozen=True, slots=True)
class _Joint:
    name: str
    kind: str
    origin: Float64Array
    """float64 [4, 4]: of the joint in its parent link."""
    axis: Float64Array
    column: int
    """Of the positions; -1 for a fixed joint, or one that stays at 0."""


class Chain:
    """The joints from the root of ``urdf`` to link ``tip``; positions come in the order ``names``.

    Moving joints of the chain that ``names`` lacks stay at 0. ConfigError: no URDF, no such link,
    a kind of joint that it cannot move, or no joint of ``names`` on the way.
    """

    def __init__(self, urdf: Path, tip: str, names: Sequence[str]) -> None:
        try:
            root = ElementTree.parse(urdf).getroot()
        except (OSError, ElementTree.ParseError) as error:
            raise ConfigError(f'{urdf} cannot be read as URDF: {error}.') from error
        links = [link.get('name', '') for link in root.findall('link')]
        if tip not in links:
            known = ', '.join(links) or 'none'
            raise ConfigError(f'{urdf} has no link {tip!r}; its links: {known}.')
        above = {_named(joint, 'child'): joint for joint in root.findall('joint')}
        joints: list[_Joint] = []
        link = tip
        while link in above:
            joints.append(_joint(above.pop(link), names))
            link = _named(root.findall(f"joint[@name='{joints[-1].name}']")[0], 'parent')
        self._joints = tuple(reversed(joints))
        moved = [names[j.column] for j in self._joints if j.column >= 0]
        if not moved:
            raise ConfigError(
                f'{urdf}: no joint on the way to {tip!r} is one of {", ".join(names)}; on it are '
                f'{", ".join(j.name for j in self._joints) or "none"}.'
            )

    def positions(self, joints: Float64Array) -> Float64Array:
        """The tip in the root link, m: float64 [N, 3] of float64 [N, D], rad and m; NaN stays."""
        poses = np.broadcast_to(np.eye(4), (len(joints), 4, 4))
        for joint in self._joints:
            poses = poses @ joint.origin
            if joint.column >= 0:
                poses = poses @ _motions(joint, joints[:, joint.column])
        return np.array(poses[:, :3, 3])


def _joint(element: ElementTree.Element, names: Sequence[str]) -> _Joint:
    name, kind = element.get('name', ''), element.get('type', '')
    if kind not in (*_MOVING, 'fixed'):
        raise ConfigError(
            f'URDF joint {name!r} is {kind!r}; on the way to the tip only fixed, '
            f'{", ".join(_MOVING)} ones can be followed.'
        )
    origin = np.eye(4)
    place = element.find('origin')
    if place is not None:
        origin[:3, 3] = _numbers(place.get('xyz', '0 0 0'))
        roll, pitch, yaw = _numbers(place.get('rpy', '0 0 0'))
        turns = (_turn(2, yaw), _turn(1, pitch), _turn(0, roll))
        origin[:3, :3] = turns[0] @ turns[1] @ turns[2]
    stated = element.find('axis')
    axis = _numbers(stated.get('xyz', '1 0 0') if stated is not None else '1 0 0')
    moving = kind in _MOVING and name in names
    return _Joint(
        name, kind, origin, axis / np.linalg.norm(axis), names.index(name) if moving else -1
    )


def _motions(joint: _Joint, values: Float64Array) -> Float64Array:
    """float64 [N, 4, 4] of positions float64 [N]."""
    poses = np.tile(np.eye(4), (len(values), 1, 1))
    if joint.kind == 'prismatic':
        poses[:, :3, 3] = values[:, None] * joint.axis
        return poses
    # Rodrigues: R = I + sin(q) K + (1 - cos(q)) K^2, K the cross product with the axis.
    x, y, z = joint.axis
    K = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    sin, cos = np.sin(values)[:, None, None], np.cos(values)[:, None, None]
    poses[:, :3, :3] = np.eye(3) + sin * K + (1.0 - cos) * (K @ K)
    return poses


def _turn(axis: int, angle: float) -> Float64Array:
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return turn


def _numbers(text: str) -> Float64Array:
    values = np.array(text.split(), np.float64)
    if values.shape != (3,):
        raise ConfigError(f'URDF: {text!r} are not three numbers.')
    return values


def _named(joint: ElementTree.Element, end: str) -> str:
    found = joint.find(end)
    return found.get('link', '') if found is not None else ''
