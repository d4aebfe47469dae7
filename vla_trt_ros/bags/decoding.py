"""Recorded bytes into messages, by the definitions that the bag carries, else by those of ROS and
of this package.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_trt_ros.config import share_dir
from vla_trt_ros.errors import BadInput, ConfigError

OWN = 'vla_trt_ros'


class UnknownType(BadInput):
    """Neither the bag nor we know what a message is made of."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One topic of one storage file. ``definition`` is empty where the file holds none, else
    written in ``encoding``: 'ros2msg', 'ros2idl' or 'ros1msg'.
    """

    id: int
    topic: str
    type: str
    """As 'sensor_msgs/msg/Image', for ROS 1 too."""
    definition: str = ''
    encoding: str = ''
    ros1: bool = False


class Decoder:
    """Messages of any channel; the types of a definition are made once."""

    def __init__(self) -> None:
        self._stores: dict[tuple[str, str], Any] = {}
        self._fallback: Any = None

    def decode(self, channel: Channel, raw: bytes) -> Any:
        """The message, arrays as views of ``raw``. UnknownType, or BadInput for bytes that do not
        fit the type.
        """
        from rosbags.serde import SerdeError

        store = self.store(channel)
        try:
            if channel.ros1:
                return store.deserialize_ros1(raw, channel.type)
            return store.deserialize_cdr(raw, channel.type)
        except (SerdeError, ValueError, IndexError, AssertionError, struct.error) as error:
            raise BadInput(
                f'{channel.topic}: {len(raw)} bytes are no {channel.type} ({error}).'
            ) from error

    def store(self, channel: Channel) -> Any:
        """The type store that holds the channel's type; UnknownType where there is none."""
        key = (channel.type, channel.definition)
        if key not in self._stores:
            self._stores[key] = self._make(channel)
        return self._stores[key]

    def _make(self, channel: Channel) -> Any:
        from rosbags.typesys import Stores, TypesysError, get_typestore

        try:
            types = _parsed(channel)
        except TypesysError as error:
            raise UnknownType(
                f'{channel.topic}: {channel.type} is not understood ({error}).'
            ) from error
        if types:
            store = get_typestore(Stores.EMPTY)
            store.register(types)
        else:
            self._fallback = store = self._fallback or own_types()
        if channel.type not in store.fielddefs:
            raise UnknownType(
                f'{channel.topic}: {channel.type} is unknown, and the bag has no definition.'
            )
        return store


def own_types() -> Any:
    """A type store of the common ROS 2 messages and of ours."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types = {}
    for path in sorted((share_dir() / 'msg').glob('*.msg')):
        types.update(
            get_types_from_msg(path.read_text(encoding='utf-8'), f'{OWN}/msg/{path.stem}')
        )
    store.register(types)
    return store


def definition_of(kind: str) -> str:
    """The text of a type, such as 'sensor_msgs/msg/Image', with all that it uses: a common type of
    ROS 2, one of ours, or of an installed package. ConfigError where it is not found.
    """
    store = _common_types()
    if kind not in store.fielddefs:
        store.register(_installed(kind, set(store.fielddefs)))
    text: str = store.generate_msgdef(kind, ros_version=2)[0]
    return text


@functools.cache
def _common_types() -> Any:
    return own_types()


def _installed(kind: str, known: set[str]) -> Any:
    from rosbags.typesys import get_types_from_msg

    folders = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    package, _, name = kind.partition('/msg/')
    places = [Path(f, 'share', package, 'msg', f'{name}.msg') for f in folders if f]
    path = next((p for p in places if p.is_file()), None)
    if path is None or not name:
        raise ConfigError(f'type {kind} is not found: source the setup.bash of its package.')
    types = get_types_from_msg(path.read_text(encoding='utf-8'), kind)
    for used in {name for _, fields in types.values() for f in fields for name in _names(f[1])}:
        if used not in known and used not in types:
            types.update(_installed(used, known | set(types)))
    return types


def _names(description: Any) -> Iterator[str]:
    """The types that a field is made of: rosbags nests them as (kind, content)."""
    content = description[1]
    if isinstance(content, str):
        if '/msg/' in content:
            yield content
    elif isinstance(content[0], tuple):
        yield from _names(content[0])


def _parsed(channel: Channel) -> Any:
    from rosbags.typesys import get_types_from_idl, get_types_from_msg

    if not channel.definition:
        return {}
    if channel.encoding != 'ros2idl':
        return get_types_from_msg(channel.definition, channel.type)
    types = {}
    separator = '=' * 80 + '\n'
    for part in channel.definition.split(separator):
        header, _, body = part.partition('\n')
        text = body if header.startswith('IDL: ') else part
        if text.strip():
            types.update(get_types_from_idl(text))
    return types
