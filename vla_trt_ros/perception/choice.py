"""Which detectors and classifiers, on which frames: from words to a `Perception` and its rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vla_trt_ros.config import PlatformConfig, load_platform, share_dir
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.perception.classifier import load_classifier
from vla_trt_ros.perception.detector import load_detector
from vla_trt_ros.perception.gpu_eyes import GpuEyes
from vla_trt_ros.perception.picture import HostEyes
from vla_trt_ros.perception.scene import Perception
from vla_trt_ros.strict_yaml import load_yaml


@dataclass(frozen=True, slots=True)
class DetectorFile:
    """Detectors and classifiers that belong together, under one name (config/detectors/)."""

    name: str
    description: str
    detectors: tuple[str, ...]
    """Bundles: names in bundles/, or paths."""
    classifiers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.detectors:
            raise ConfigError('detectors is empty; name a bundle.')


@dataclass(frozen=True, slots=True)
class Turn:
    """How often a camera is looked at: ``hz`` times a second, or every ``every``-th frame."""

    hz: float = 0.0
    every: int = 0


def bundles_of(detectors: str, classifiers: str = '') -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Bundles of detectors and of classifiers that the comma-separated words name.

    A word of ``detectors`` is a file of config/detectors, which may bring classifiers, or else a
    bundle. ConfigError for a file that is wrong.
    """
    chosen: list[str] = []
    following: list[str] = []
    for word in words(detectors):
        path = share_dir() / 'config' / 'detectors' / f'{word}.yaml'
        if path.is_file():
            file = load_detector_file(path)
            chosen += file.detectors
            following += file.classifiers
        else:
            chosen.append(word)
    following += words(classifiers)
    return tuple(dict.fromkeys(chosen)), tuple(dict.fromkeys(following))


def load_detector_file(path: Path) -> DetectorFile:
    """ConfigError for a file that is wrong, or named otherwise than it says."""
    file = load_yaml(DetectorFile, path)
    if file.name != path.stem:
        raise ConfigError(f'{path}: name is {file.name!r}; a file and its name must agree.')
    return file


def load_perception(
    detectors: str,
    classifiers: str = '',
    platform: str | PlatformConfig = 'cpu',
    *,
    score_threshold: float | None = None,
    max_detections: int = 100,
) -> Perception:
    """Load and warm up; words as for `bundles_of`. BundleError, BackendError, ConfigError."""
    of_detectors, of_classifiers = bundles_of(detectors, classifiers)
    chosen = load_platform(platform) if isinstance(platform, str) else platform
    eyes = partial(GpuEyes, most=max_detections) if chosen.perception_on_gpu else HostEyes
    with ExitStack() as undo:
        loaded = []
        for bundle in of_detectors:
            detector = load_detector(
                bundle,
                chosen,
                score_threshold=score_threshold,
                max_detections=max_detections,
            )
            undo.callback(detector.close)
            loaded.append(detector)
        following = []
        for bundle in of_classifiers:
            classifier = load_classifier(bundle, chosen)
            undo.callback(classifier.close)
            following.append(classifier)
        perception = Perception(loaded, following, max_detections=max_detections, eyes=eyes)
        undo.pop_all()
    return perception


def turns_of(text: str, views: Iterable[str]) -> dict[str, Turn]:
    """``'all=5'``: every camera 5 times a second; ``'base=5,wrist=/3'``: base at 5 Hz, wrist on
    every third frame, other cameras never. ConfigError for an unknown camera or another rate.
    """
    known = tuple(views)
    turns: dict[str, Turn] = {}
    for part in words(text):
        view, _, rate = part.partition('=')
        if view != 'all' and view not in known:
            raise ConfigError(f'rates: no camera {view!r}; there are {", ".join(known)}, or all.')
        turns.update(dict.fromkeys(known if view == 'all' else (view,), _turn(rate)))
    if not turns:
        raise ConfigError('rates is empty: give all=5, or base=5,wrist=/3.')
    return turns


def words(text: str) -> list[str]:
    """Comma-separated words, without blanks."""
    return [word.strip() for word in text.split(',') if word.strip()]


def _turn(rate: str) -> Turn:
    try:
        turn = Turn(every=int(rate[1:])) if rate.startswith('/') else Turn(hz=float(rate))
    except ValueError:
        turn = Turn()
    if not (turn.every >= 1 or 0.01 <= turn.hz <= 1000.0):
        raise ConfigError(f'rate {rate!r} is neither 0.01 to 1000 Hz nor every n-th frame, as /3.')
    return turn


class Rota:
    """Whose turn it is. Times are seconds of a steady clock."""

    def __init__(self, turns: Mapping[str, Turn], now: float) -> None:
        self._turns = dict(turns)
        self._due = dict.fromkeys(turns, now)

    def next(self, now: float) -> str | None:
        """The camera that waits longest for its turn, if one does."""
        view = min(self._due, key=self._due.__getitem__)
        return view if self._due[view] <= now else None

    def wait(self, now: float) -> float:
        """Seconds until the next turn."""
        return max(0.0, min(self._due.values()) - now)

    def again(self, view: str, now: float, seconds: float) -> None:
        """Ask again in a moment: there was no new frame."""
        self._due[view] = now + seconds

    def done(self, view: str, now: float) -> int:
        """The turn was taken; how many turns of this camera went by meanwhile."""
        hz = self._turns[view].hz
        if not hz:
            self._due[view] = now
            return 0
        missed = math.floor((now - self._due[view]) * hz)
        self._due[view] += (missed + 1) / hz
        return missed
