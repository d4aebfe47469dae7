"""What several verbs read from the command line in the same way."""

from __future__ import annotations

from vla_trt_ros.errors import ConfigError


def step_counts(text: str) -> list[int]:
    """'1,3,10' as numbers; ConfigError for anything else. Empty text: none."""
    try:
        return [int(word) for word in text.split(',') if word]
    except ValueError:
        raise ConfigError(f'--steps {text!r}: write numbers such as 1,3,10.') from None
