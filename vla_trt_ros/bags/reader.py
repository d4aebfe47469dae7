"""Bags as the nodes would have seen them: frames, joint states, commands, in the order of time.

Streams: one message is in memory at a time, however long the bag is. Messages become datatypes by
the same functions as live ones (`vla_trt_ros.messages`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_trt_ros.bags.decoding import Decoder
from vla_trt_ros.bags.facts import BagFacts
from vla_trt_ros.bags.parts import Parts, TopicInfo, find_parts
from vla_trt_ros.bags.storage import open_storage
from vla_trt_ros.bags.topics import Kind, Role, assign
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import JointSample
from vla_trt_ros.errors import BadInput, ConfigError
from vla_trt_ros.messages import (
    chunk_from_msg,
    command_from_positions,
    command_from_trajectory,
    frame_from_compressed,
    frame_from_image,
    joints_from_msg,
    stamp_ns,
)

_PEEK = 200
"""Joint states that are looked at to tell another robot's bag."""


@dataclass(frozen=True, slots=True)
class Event:
    """One message of a bag."""

    time_ns: int
    """When it was recorded, on the clock of the stamps."""
    kind: Kind
    name: str
    """The view of a camera; else the kind."""
    bag: int
    """Which of the paths it is from: another bag is another run, with nothing carried over."""
    content: Any
    """As `payload`, or the BadInput that is raised there."""

    @property
    def payload(self) -> Any:
        """'camera': CameraFrame; 'joints': JointSample; 'command': Command; 'chunk': ActionChunk;
        'prompt': str; 'status', 'timing': the message. BadInput where the message cannot be used.
        """
        if isinstance(self.content, BadInput):
            raise self.content
        return self.content


@dataclass(frozen=True, slots=True)
class _Bag:
    parts: Parts
    roles: dict[str, Role]
    held: tuple[TopicInfo, ...]


class BagReader:
    """One or several bags of a robot, one behind the other; `open_bag` makes it."""

    def __init__(self, bags: Sequence[_Bag], robot: RobotConfig) -> None:
        self._bags = bags
        self._robot = robot
        self.facts: tuple[BagFacts, ...] = ()
        """Of each bag: filled while `events` runs, begun anew by the next call of it."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """As they were given."""
        return tuple(bag.parts.path for bag in self._bags)

    @property
    def topics(self) -> Mapping[str, Role]:
        """Topic -> what it is read as, over all bags."""
        return {topic: role for bag in self._bags for topic, role in bag.roles.items()}

    @property
    def kinds(self) -> frozenset[Kind]:
        """What there is to read."""
        return frozenset(role.kind for role in self.topics.values())

    @property
    def messages(self) -> int:
        """How many events to expect, for a progress bar; 0 where no index says it."""
        return sum(t.count for bag in self._bags for t in bag.held if t.topic in bag.roles)

    def notes(self) -> list[str]:
        """What was odd, lost or left out, a line each: of what `events` has read so far."""
        return [line for facts in self.facts for line in facts.lines()]

    def events(self, *kinds: Kind) -> Iterator[Event]:
        """All events, or those of ``kinds``: messages of others are not decoded.

        A 'prompt' comes where it was told to the policy, and where the policy's status shows one
        that is new.
        """
        self.facts = tuple(_facts(bag) for bag in self._bags)
        for index, (bag, facts) in enumerate(zip(self._bags, self.facts, strict=True)):
            told = ''
            for event in self._read(index, bag, facts, kinds):
                prompt = _prompt(event)
                if not kinds or event.kind in kinds:
                    yield event
                if prompt and prompt != told:
                    told = prompt
                    if event.kind == 'status' and (not kinds or 'prompt' in kinds):
                        yield Event(event.time_ns, 'prompt', 'prompt', index, prompt)

    def _read(
        self, index: int, bag: _Bag, facts: BagFacts, kinds: tuple[Kind, ...]
    ) -> Iterator[Event]:
        decoder = Decoder()
        if 'prompt' in kinds:
            kinds = (*kinds, 'status')
        roles = {t: r for t, r in bag.roles.items() if not kinds or r.kind in kinds}
        facts.expected = {t.topic: t.count for t in bag.parts.topics or () if t.topic in roles}
        for path in bag.parts.files:
            with open_storage(path) as file:
                for channel, log_ns, raw in file.messages(lambda c: c.topic in roles):
                    role = roles[channel.topic]
                    content: Any
                    try:
                        msg = decoder.decode(channel, raw)
                        stamp = stamp_ns(msg.header.stamp) if hasattr(msg, 'header') else 0
                        time_ns = facts.clock.place(channel.topic, log_ns, stamp)
                    except BadInput as error:
                        content, time_ns = error, facts.clock.place(channel.topic, log_ns)
                    else:
                        content = _content(role, msg, time_ns, self._robot)
                    if isinstance(content, BadInput):
                        facts.see_bad(role.kind, str(content))
                    elif role.kind == 'joints':
                        facts.see_joints(content)
                    yield Event(time_ns, role.kind, role.name, index, content)
                if file.note:
                    facts.losses.append(file.note)


def open_bag(
    paths: Sequence[Path],
    robot: RobotConfig,
    topics: Mapping[str, str] | None = None,
    need: Sequence[str] | None = None,
) -> BagReader:
    """Bags of ``robot``: folders, .mcap, .db3 or .bag files, read one behind the other.

    ``topics`` (role -> topic: a view, 'joints', 'command', 'chunk', 'prompt', 'status', 'timing')
    stands in for the robot file's. ``need``: roles that must be there, all views and 'joints' if
    it is None. ConfigError: no bag, nothing readable, a topic that is missing or of another type
    (it lists what exists), joint states of another robot, or rosbags is not installed.
    """
    if not paths:
        raise ConfigError('no bag is given.')
    check_installed()
    wanted = (*robot.cameras, 'joints') if need is None else need
    bags = []
    for path in paths:
        parts = find_parts(path)
        held = _topics(parts)
        if not held:
            raise ConfigError(f'{path} is empty: it holds no topic.')
        roles = assign(held, robot, topics or {}, wanted, str(path))
        bags.append(_Bag(parts, roles, held))
    for bag in bags:
        _check_joints(bag, robot)
    return BagReader(bags, robot)


def check_installed() -> None:
    """ConfigError where rosbags is missing."""
    try:
        import rosbags.rosbag2  # noqa: F401 - only whether it is there
    except ModuleNotFoundError as error:
        raise ConfigError(
            "reading and writing bags needs rosbags: pip install 'vla_trt_ros[bags]'."
        ) from error


def _topics(parts: Parts) -> tuple[TopicInfo, ...]:
    """As metadata.yaml lists them; else of all files, in the order of their first appearance."""
    if parts.topics is not None:
        return parts.topics
    found: dict[tuple[str, str], int] = {}
    for path in parts.files:
        with open_storage(path) as file:
            for channel, count in file.channels:
                key = (channel.topic, channel.type)
                found[key] = found.get(key, 0) + count
    return tuple(TopicInfo(topic, kind, count) for (topic, kind), count in found.items())


def _facts(bag: _Bag) -> BagFacts:
    return BagFacts(
        bag.parts.path,
        losses=list(bag.parts.notes),
        ignored=tuple(t for t in bag.held if t.topic not in bag.roles),
        steady=frozenset(t for t, r in bag.roles.items() if r.kind in ('camera', 'joints')),
    )


def _check_joints(bag: _Bag, robot: RobotConfig) -> None:
    """ConfigError where none of the first joint states has every joint of the robot's state."""
    if not any(role.kind == 'joints' for role in bag.roles.values()):
        return
    named: dict[str, None] = {}
    seen = 0
    for event in BagReader([bag], robot).events('joints'):
        if isinstance(event.content, JointSample):
            if set(robot.state_names) <= set(event.content.names):
                return
            named.update(dict.fromkeys(event.content.names))
        seen += 1
        if seen >= _PEEK:
            break
    missing = [name for name in robot.state_names if name not in named]
    if seen and missing:
        raise ConfigError(
            f'{bag.parts.path} is of another robot than {robot.name}: its joint states lack '
            f'{", ".join(missing)}; they name {", ".join(named) or "no joint"}. Give its own '
            'robot file with --robot.'
        )


def _content(role: Role, msg: Any, time_ns: int, robot: RobotConfig) -> Any:
    """The payload of an event, or the BadInput that says why there is none."""
    try:
        if role.kind == 'camera':
            raw = hasattr(msg, 'encoding')
            return (frame_from_image if raw else frame_from_compressed)(msg, time_ns)
        if role.kind == 'joints':
            return joints_from_msg(msg, time_ns)
        if role.kind == 'chunk':
            return chunk_from_msg(msg)
        if role.kind == 'command':
            if hasattr(msg, 'points'):
                return command_from_trajectory(msg, time_ns)
            return command_from_positions(msg, time_ns, robot)
    except BadInput as error:
        return error
    return msg.data if role.kind == 'prompt' else msg


def _prompt(event: Event) -> str:
    if isinstance(event.content, BadInput):
        return ''
    if event.kind == 'prompt':
        return str(event.content)
    if event.kind == 'status' and event.content.node == 'policy':
        return str(event.content.prompt)
    return ''
