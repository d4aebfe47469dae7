"""YAML or JSON mappings into frozen dataclasses, strictly: an unknown key, a wrong type or a
missing value is an error that names the file, the key and the remedy.

Supported field types: bool, int, float, str, Enum, Literal, ``X | None``, ``tuple[X, ...]``,
``dict[str, X]`` and dataclasses of these.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from vla_trt_ros.errors import ConfigError

T = TypeVar('T')


def load_yaml(cls: type[T], path: Path) -> T:
    """Read ``path`` into dataclass ``cls``.

    Raises ConfigError for a missing or malformed file and for anything `build` refuses.
    """
    try:
        text = path.read_text(encoding='utf-8')
    except OSError as error:
        raise ConfigError(f'{path}: cannot be read ({error.strerror}).') from error
    except UnicodeDecodeError as error:
        raise ConfigError(f'{path}: is not UTF-8 text.') from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f'{path}: is not YAML: {error}') from error
    return build(cls, data, str(path))


def build(cls: type[T], data: object, where: str) -> T:
    """``data`` (nested mappings and lists) as an instance of dataclass ``cls``.

    ``where`` says whose data it is and leads every message. ConfigError otherwise; a ConfigError
    raised by the dataclass's own ``__post_init__`` is given the same lead.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f'{where}: expected a mapping, found {_show(data)}.')
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    hints = typing.get_type_hints(cls)
    for key in data:
        if key not in fields:
            raise ConfigError(f'{where}: unknown key {key!r}; {_suggest(str(key), list(fields))}')
    values: dict[str, Any] = {}
    for name, f in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], f'{where}: {name}')
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f'{where}: {name!r} is missing; add it.')
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f'{where}: {error}') from error


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = [a for a in args if a is not type(None)]
        return _convert(inner[0], value, where)
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f'{where}: {_show(value)} is none of {_list(args)}.')
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f'{where}: expected a list, found {_show(value)}.')
        return tuple(_convert(args[0], v, f'{where}[{i}]') for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f'{where}: expected a mapping, found {_show(value)}.')
        return {str(k): _convert(args[1], v, f'{where}.{k}') for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), value, where)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            choices = _list([m.value for m in kind])
            raise ConfigError(f'{where}: {_show(value)} is none of {choices}.') from None
    return _scalar(kind, value, where)


def _scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f'{where}: {value} is not a finite number.')
        return float(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        return value
    raise ConfigError(f'{where}: expected {kind.__name__}, found {_show(value)}.')


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + '...'


def _list(values: typing.Iterable[object]) -> str:
    return ', '.join(str(v) for v in values)


def _suggest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f'did you mean {close[0]!r}?' if close else f'known keys: {_list(known)}.'
