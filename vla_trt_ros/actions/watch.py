"""What the cameras must not show while the arm moves: labels of detectors become hold or slow.

Detections that do not come are as bad as a label in view: a watch that is blind lets nothing move.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vla_trt_ros.datatypes import NS, LabelledBox, Reason
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.freshness import FUTURE_TOLERANCE_NS, Freshness

OK = Freshness()


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a camera's picture, pixels; a box counts where it reaches into it."""

    left: float
    upper: float
    right: float
    lower: float

    def __post_init__(self) -> None:
        if not (self.left < self.right and self.upper < self.lower):
            raise ConfigError(
                f'region {self.left:g}:{self.upper:g}:{self.right:g}:{self.lower:g} is empty; '
                'write left:upper:right:lower in pixels.'
            )

    def touches(self, box: LabelledBox) -> bool:
        """Whether a part of ``box`` lies inside."""
        across = box.left < self.right and box.right > self.left
        return across and box.upper < self.lower and box.lower > self.upper


EVERYWHERE = Region(-math.inf, -math.inf, math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """``cameras``: each must deliver detections, and what it shows in its region counts."""

    cameras: Mapping[str, Region]
    hold_on: tuple[str, ...] = ()
    """Labels at which the arm holds."""
    slow_on: tuple[str, ...] = ()
    """Labels at which it moves at ``slow_factor`` of its speed limits."""
    min_score: float = 0.5
    max_age_ms: float = 500.0
    """Since the exposure of the newest picture that was looked at."""
    clear_s: float = 1.0
    """Seconds without the label until it counts as gone."""
    slow_factor: float = 0.25

    def __post_init__(self) -> None:
        if not self.cameras:
            raise ConfigError('a watch needs at least one camera.')
        if not (self.hold_on or self.slow_on):
            raise ConfigError('a watch needs a label to hold or to slow down on.')
        if not 0.0 <= self.min_score <= 1.0:
            raise ConfigError(f'watch_score {self.min_score} is outside 0 to 1.')
        if not (self.max_age_ms > 0 and math.isfinite(self.max_age_ms)):
            raise ConfigError(f'max_detection_age_ms {self.max_age_ms} must be above 0.')
        if not (self.clear_s >= 0 and math.isfinite(self.clear_s)):
            raise ConfigError(f'watch_clear {self.clear_s} s is negative.')
        if not 0.0 < self.slow_factor <= 1.0:
            raise ConfigError(f'slow_factor {self.slow_factor} is outside 0 to 1.')


def cameras_of(text: str, known: Iterable[str]) -> dict[str, Region]:
    """``'base=100:0:540:480,wrist'``: two cameras, of base a region; empty: all of ``known``.

    ConfigError for an unknown camera, and for a region that is none.
    """
    names = tuple(known)
    cameras: dict[str, Region] = {}
    for part in filter(None, (p.strip() for p in text.split(','))):
        camera, separator, corners = part.partition('=')
        if camera not in names:
            raise ConfigError(
                f'watch_cameras: no camera {camera!r}; there are {", ".join(names)}.'
            )
        cameras[camera] = _region(corners) if separator else EVERYWHERE
    return cameras or dict.fromkeys(names, EVERYWHERE)


def _region(corners: str) -> Region:
    try:
        left, upper, right, lower = map(float, corners.split(':'))
    except ValueError:
        raise ConfigError(
            f'watch_cameras: {corners!r} is not left:upper:right:lower in pixels.'
        ) from None
    return Region(left, upper, right, lower)


@dataclass(slots=True)
class _Sighting:
    """Of one of the two lists: what was last seen in view, where and when."""

    seen_ns: int | None = None
    text: str = ''


@dataclass(slots=True)
class Watch:
    """Judges what one thread offers. All times are nanoseconds of one clock."""

    config: WatchConfig
    _newest_ns: dict[str, int] = field(default_factory=dict)
    _hold: _Sighting = field(default_factory=_Sighting)
    _slow: _Sighting = field(default_factory=_Sighting)
    _unknown: str = ''

    def offer(self, camera: str, stamp_ns: int, boxes: Iterable[LabelledBox], now_ns: int) -> str:
        """What a picture of ``camera``, exposed at ``stamp_ns``, shows. '' or the counter of why
        it was not taken: a stamp from the future, or one that does not rise.
        """
        if camera not in self.config.cameras:
            return ''
        if stamp_ns > now_ns + FUTURE_TOLERANCE_NS:
            return 'detections_from_future'
        newest_ns = self._newest_ns.get(camera)
        # A clock that was set back: its stamps are taken again once the old ones are stale.
        if newest_ns is not None and stamp_ns <= newest_ns and self._fresh(newest_ns, now_ns):
            return 'detections_not_rising'
        self._newest_ns[camera] = stamp_ns
        region = self.config.cameras[camera]
        for box in boxes:
            if box.score < self.config.min_score or not region.touches(box):
                continue
            for labels, sighting in (
                (self.config.hold_on, self._hold),
                (self.config.slow_on, self._slow),
            ):
                if box.label in labels:
                    sighting.seen_ns = now_ns
                    sighting.text = f'{box.label} in view of camera {camera} ({box.score:.2f})'
        return ''

    def offer_labels(self, labels: Iterable[str]) -> None:
        """What the detectors and classifiers know; a label that none does can never be seen."""
        known = tuple(labels)
        unknown = [w for w in (*self.config.hold_on, *self.config.slow_on) if w not in known]
        self._unknown = (
            f'no detector knows label {unknown[0]!r}, only {", ".join(known)}: '
            'correct hold_on_labels and slow_on_labels, or choose another detector.'
            if unknown
            else ''
        )

    def forget(self) -> None:
        """Drop what came so far: time jumped."""
        self._newest_ns.clear()
        self._hold, self._slow = _Sighting(), _Sighting()

    def freshness(self, now_ns: int) -> Freshness:
        """Whether the arm may move: STALE_DETECTIONS, PERCEPTION_HOLD or ok."""
        if self._unknown:
            return Freshness(Reason.STALE_DETECTIONS, self._unknown)
        for camera in self.config.cameras:
            newest_ns = self._newest_ns.get(camera)
            if newest_ns is None:
                return Freshness(
                    Reason.STALE_DETECTIONS,
                    f'no detections of camera {camera} yet: is the perception node running?',
                )
            if not self._fresh(newest_ns, now_ns):
                return Freshness(
                    Reason.STALE_DETECTIONS,
                    f'newest detections of camera {camera} are of '
                    f'{(now_ns - newest_ns) / 1e6:.0f} ms ago (max_detection_age_ms '
                    f'{self.config.max_age_ms:.0f}): is the perception node running?',
                )
        return self._judge(self._hold, Reason.PERCEPTION_HOLD, now_ns)

    def slowness(self, now_ns: int) -> Freshness:
        """Whether it may move at full speed: PERCEPTION_SLOW or ok."""
        return self._judge(self._slow, Reason.PERCEPTION_SLOW, now_ns)

    def _judge(self, sighting: _Sighting, reason: Reason, now_ns: int) -> Freshness:
        seen_ns = sighting.seen_ns
        if seen_ns is None or now_ns - seen_ns > self.config.clear_s * NS:
            return OK
        return Freshness(reason, f'{sighting.text}: goes on {self.config.clear_s:g} s after.')

    def _fresh(self, stamp_ns: int, now_ns: int) -> bool:
        return now_ns - stamp_ns <= self.config.max_age_ms * 1e6
