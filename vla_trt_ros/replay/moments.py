"""The moments that a person should look at: the worst ones, with what the cameras saw."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import CameraFrame, Float64Array
from vla_trt_ros.replay.judge import Judged
from vla_trt_ros.replay.parts import PartResult

MOMENTS = 10
_WINDOW = 2.0  # seconds: the frames beside the worst one are no news
_SIDE = 240  # pixels of the longer side


@dataclass(frozen=True, slots=True)
class Moment:
    """One of the worst frames, on its joint with the largest error for its range.

    ``actions`` and ``recorded`` float64 [H]; ``pictures``: view -> JPEG in base64.
    """

    error: float
    t: float
    bag: str
    prompt: str
    joint: str
    actions: Float64Array
    recorded: Float64Array
    pictures: Mapping[str, str]


class WorstMoments:
    """Keeps the worst frames of a part, one within `_WINDOW` s at most; memory for ten pairs."""

    def __init__(self, robot: RobotConfig) -> None:
        self._range = np.array([j.upper - j.lower for j in robot.joints])
        self._kept: dict[int, tuple[float, Judged]] = {}

    def offer(self, judged: Judged) -> None:
        """One more frame."""
        error = judged.values['mae_all']
        window = math.floor(judged.values['t'] / _WINDOW)
        if math.isnan(error) or error <= self._kept.get(window, (-1.0,))[0]:
            return
        self._kept[window] = (error, judged)
        if len(self._kept) > MOMENTS:
            del self._kept[min(self._kept, key=lambda w: self._kept[w][0])]

    def as_json(self) -> list[dict[str, Any]]:
        """Plain data, the worst one first."""
        worst = sorted(self._kept.values(), key=lambda found: -found[0])
        return [self._moment(error, judged) for error, judged in worst]

    def _moment(self, error: float, judged: Judged) -> dict[str, Any]:
        chunk = judged.tick.result.chunk
        apart = np.abs(chunk.actions - judged.recorded) / self._range
        known = np.isfinite(apart)
        mean = np.where(known, apart, 0.0).sum(axis=0) / np.maximum(1, known.sum(axis=0))
        j = int(mean.argmax())
        return {
            'error': error,
            't': judged.values['t'],
            'prompt': judged.tick.prompt,
            'joint': chunk.names[j],
            'actions': [float(v) for v in chunk.actions[:, j]],
            'recorded': [float(v) if math.isfinite(v) else None for v in judged.recorded[:, j]],
            'pictures': {view: _jpeg(f) for view, f in judged.tick.frames.items()},
        }


def moments_of(settings: Sequence[Sequence[PartResult]]) -> list[tuple[int, Moment]]:
    """The worst ten over all parts of all settings, each with its setting's number; of settings
    that were off in the same two seconds the one that was most.
    """
    found = [
        (k, _read(data, str(part.conditions['bag'])))
        for k, parts in enumerate(settings)
        for part in parts
        for data in part.facts['moments']
    ]
    worst: dict[tuple[str, int], tuple[int, Moment]] = {}
    for k, moment in sorted(found, key=lambda item: -item[1].error):
        worst.setdefault((moment.bag, math.floor(moment.t / _WINDOW)), (k, moment))
    return list(worst.values())[:MOMENTS]


def _read(data: Mapping[str, Any], bag: str) -> Moment:
    numbers = {
        name: np.array([math.nan if v is None else v for v in data[name]], np.float64)
        for name in ('actions', 'recorded')
    }
    return Moment(bag=bag, **{**data, **numbers})


def _jpeg(frame: CameraFrame) -> str:
    picture = Image.fromarray(to_rgb(frame))
    picture.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    picture.save(stream, 'JPEG', quality=82)
    return base64.b64encode(stream.getvalue()).decode('ascii')
