"""Measured shares: how much of a stage's floor rate an engine reaches."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_trt_ros.config import STAGES
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.strict_yaml import build


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Floor over measured time, per stage: above 0, and 1 where an engine meets its floor."""

    vision: float
    prefix: float
    denoise: float
    source: str = ''
    """What was measured, on what and when; printed with every prediction."""

    def __post_init__(self) -> None:
        for stage in STAGES:
            if not 0 < self.share(stage) <= 1:
                raise ConfigError(
                    f'{stage} {self.share(stage):g} is no share: floor over measured time lies '
                    'above 0 and is at most 1. Check platform, device and precision.'
                )

    def share(self, stage: str) -> float:
        """Of 'vision', 'prefix' or 'denoise'."""
        value: float = getattr(self, stage)
        return value


def read_shares(path: Path) -> Efficiency | list[Any]:
    """Read a JSON file such as {"vision": 0.6, "prefix": 0.5, "denoise": 0.4, "source": "..."};
    a list in it is returned as it is, since it holds a benchmark's records (measured.py).

    ConfigError for a file that is none, a stage that is unknown or missing, or a share above 1.
    """
    try:
        data = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ConfigError(f'{path}: cannot be read ({error.strerror}).') from error
    except ValueError as error:
        raise ConfigError(f'{path}: is not JSON ({error}).') from error
    return data if isinstance(data, list) else build(Efficiency, data, str(path))
