"""Can an input be used now, and if not, why: the answer that cameras and joints both give."""

from __future__ import annotations

from dataclasses import dataclass

from vla_trt_ros.datatypes import NS, Reason
from vla_trt_ros.errors import BadAction, BadImage, BadPrompt, BadState, VlaError

FUTURE_TOLERANCE_NS = NS // 20
"""A sender's clock may run this far ahead of ours before its stamps are called wrong."""

_REASONS = (
    (BadImage, Reason.BAD_IMAGE),
    (BadState, Reason.BAD_STATE),
    (BadPrompt, Reason.BAD_PROMPT),
    (BadAction, Reason.BAD_ACTION),
)


def reason_of(error: VlaError) -> Reason:
    """The reason that a tick which ended with ``error`` gives for having no chunk."""
    return next((r for kind, r in _REASONS if isinstance(error, kind)), Reason.POLICY_ERROR)


@dataclass(frozen=True, slots=True)
class Freshness:
    """``text`` names the input, the value and the budget."""

    reason: Reason = Reason.NONE
    text: str = ''

    @property
    def ok(self) -> bool:
        """True where nothing stands against using the input."""
        return self.reason is Reason.NONE
