"""Which topic of a bag plays which part: as the robot file names it, or as it is told."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vla_trt_ros.bags.parts import TopicInfo
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.errors import ConfigError

Kind = Literal['camera', 'joints', 'command', 'chunk', 'prompt', 'status', 'timing']

TYPES: dict[Kind, tuple[str, ...]] = {
    'camera': ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'),
    'joints': ('sensor_msgs/msg/JointState',),
    'command': ('trajectory_msgs/msg/JointTrajectory', 'std_msgs/msg/Float64MultiArray'),
    'chunk': ('vla_trt_ros/msg/ActionChunk',),
    'prompt': ('std_msgs/msg/String',),
    'status': ('vla_trt_ros/msg/PolicyStatus',),
    'timing': ('vla_trt_ros/msg/PolicyTiming',),
}
"""What a topic of each kind may be."""


@dataclass(frozen=True, slots=True)
class Role:
    """What a topic is read as; ``name`` is the view of a camera, else the kind."""

    kind: Kind
    name: str


def parse_topics(words: Iterable[str]) -> dict[str, str]:
    """'base=/cam0/image_raw' and so on as role -> topic; ConfigError for anything else."""
    topics = {}
    for word in words:
        name, separator, topic = word.partition('=')
        if not separator or not name or not topic:
            raise ConfigError(f'--topic {word!r}: write ROLE=TOPIC, such as base=/cam0/image_raw.')
        topics[name] = topic
    return topics


def assign(
    held: Sequence[TopicInfo],
    robot: RobotConfig,
    topics: Mapping[str, str],
    need: Sequence[str],
    where: str,
) -> dict[str, Role]:
    """Topic -> role, for those of ``held`` that have one. ``topics`` overrides the robot file.

    ``need``: roles (views, 'joints', ...) that must be there. ConfigError lists what the bag holds
    and how to name it.
    """
    wanted = _wanted(robot)
    unknown = sorted(set(topics) - set(wanted))
    if unknown:
        raise ConfigError(
            f'--topic {unknown[0]}={topics[unknown[0]]}: robot {robot.name} has no such role; it '
            f'has {", ".join(wanted)}.'
        )
    by_name = {bare(t.topic): t for t in held}
    roles: dict[str, Role] = {}
    missing = []
    for name, (role, usual) in wanted.items():
        given = topics.get(name)
        found = [by_name[bare(t)] for t in ((given,) if given else usual) if bare(t) in by_name]
        fitting = [t for t in found if t.type in TYPES[role.kind]]
        if found and not fitting:
            raise ConfigError(
                f'{where}: {found[0].topic} is {found[0].type}; {name} must be '
                f'{" or ".join(TYPES[role.kind])}.'
            )
        for info in fitting:
            roles[info.topic] = role
        if not fitting and (given or name in need):
            missing.append((name, role.kind, given or usual[0]))
    if missing:
        raise ConfigError(
            _complaint(where, missing, held, [t for t in held if t.topic not in roles])
        )
    return roles


def bare(topic: str) -> str:
    """A topic without its leading slash."""
    return topic.lstrip('/')


def _wanted(robot: RobotConfig) -> dict[str, tuple[Role, tuple[str, ...]]]:
    """Role's name -> role, and the topics that it is usually found on."""
    controllers = (robot.controller, *(robot.controller.of_kind(k) for k in _CONTROLLERS))
    return {
        **{
            view: (Role('camera', view), (camera.topic,)) for view, camera in robot.cameras.items()
        },
        'joints': (Role('joints', 'joints'), (robot.joint_states_topic,)),
        'command': (Role('command', 'command'), tuple({c.topic: 0 for c in controllers})),
        'chunk': (Role('chunk', 'chunk'), ('action_chunk',)),
        'prompt': (Role('prompt', 'prompt'), ('policy/prompt', 'sim/task_prompt')),
        'status': (Role('status', 'status'), ('policy/status',)),
        'timing': (Role('timing', 'timing'), ('policy/timing',)),
    }


_CONTROLLERS = ('trajectory', 'position')


def _complaint(
    where: str,
    missing: Sequence[tuple[str, Kind, str]],
    held: Sequence[TopicInfo],
    free: Sequence[TopicInfo],
) -> str:
    lacking = ', '.join(f'{topic!r} ({name})' for name, _, topic in missing)
    lines = [f'{where} lacks {lacking}; it holds {len(held)} topic(s):']
    lines += [f'  {t.topic}  {t.type}  {t.count or "?"} messages' for t in held]
    for name, kind, topic in missing:
        fitting = [t.topic for t in free if t.type in TYPES[kind]]
        close = difflib.get_close_matches(topic, fitting, n=1, cutoff=0.0)
        named = [t for t in fitting if name in t]
        if named or close:
            lines.append(f'Perhaps --topic {name}={(named or close)[0]}')
        else:
            lines.append(f'No other of them is {" or ".join(TYPES[kind])}, as {name} must be.')
    return '\n'.join(lines)
