"""What several verbs read from the command line in the same way."""

from __future__ import annotations

from vla_trt_ros.errors import ConfigError


def step_counts(text: str) -> list[int]:
    """'1,3,10' as numbers; ConfigError for anything else. Empty text: none."""
    try:
        return [int(word) for word in text.split(',') if word]
    except ValueError:
        raise ConfigError(f'--steps {text!r}: write numbers such as 1,3,10.') from None


def picture_size(option: str, text: str) -> tuple[int, int]:
    """'640x480' as width and height, pixels; ConfigError names the ``option``."""
    width, _, height = text.partition('x')
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ConfigError(f'{option} {text!r}: write WIDTHxHEIGHT, such as 640x480.')
    return int(width), int(height)
