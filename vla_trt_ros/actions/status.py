"""What the gate tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from vla_trt_ros.datatypes import Reason, State


@dataclass(frozen=True, slots=True)
class GateStatus:
    """What the gate does and why; ``reason`` and ``text`` are empty while it runs at full
    speed.
    """

    state: State
    reason: Reason
    text: str
    dry_run: bool
    estop_latched: bool
    rows_left: int
    chunks: int
    rejected: int
    clamped: dict[str, int]
    """Elements moved to a limit so far, per joint; a row counts again in each chunk it is in."""
    counts: dict[str, int]
