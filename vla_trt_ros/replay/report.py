"""All that a replay found, in one place: what report.json holds and report.html shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vla_trt_ros.replay.compare import Estimate
from vla_trt_ros.replay.gates import Verdict
from vla_trt_ros.replay.parts import PartResult
from vla_trt_ros.replay.summary import Summary


@dataclass(frozen=True, slots=True)
class SettingResult:
    """One bundle at one precision and step count, over all bags and noises."""

    name: str
    stages: Mapping[str, str]
    summary: Summary
    parts: Sequence[PartResult]
    estimates: Sequence[Estimate] = ()
    """The errors that have an interval of their own."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A setting against another on the same frames."""

    setting: str
    reference: str
    differences: Sequence[Estimate]


@dataclass(frozen=True, slots=True)
class Report:
    """``facts`` are words for the head of the page: robot, bundle, hardware, clock, ..."""

    facts: Mapping[str, str]
    joints: Sequence[tuple[str, str]]
    """Name and unit of each joint."""
    settings: Sequence[SettingResult]
    comparisons: Sequence[Comparison]
    verdicts: Sequence[Verdict]
    notes: Sequence[str]
    """What a reader must know of the bags: time jumps, lost messages, unread topics."""
    deadline_ms: float

    def as_json(self) -> dict[str, Any]:
        """Plain data, numbers in full."""
        return {
            'facts': dict(self.facts),
            'settings': [
                {
                    'name': s.name,
                    'stages': dict(s.stages),
                    'metrics': s.summary.metrics,
                    'intervals95': {e.metric: (e.low, e.high) for e in s.estimates},
                    'counts': s.summary.counts,
                }
                for s in self.settings
            ],
            'comparisons': [
                {
                    'setting': c.setting,
                    'reference': c.reference,
                    'differences': [asdict(d) for d in c.differences],
                }
                for c in self.comparisons
            ],
            'gates': [
                {'gate': str(v.gate), 'setting': v.setting, 'value': v.value, 'passed': v.passed}
                for v in self.verdicts
            ],
            'notes': list(self.notes),
        }
