"""What the gate says of itself, where no value belongs into the sentence."""

from __future__ import annotations

from vla_trt_ros.datatypes import Reason
from vla_trt_ros.freshness import Freshness

NO_CHUNK = Freshness(Reason.NO_CHUNK, 'waiting for a new chunk.')
USED_UP = Freshness(
    Reason.STALE_CHUNK,
    'the rows of the last chunk are used up and no new chunk came: is the policy running?',
)
ESTOP = Freshness(Reason.ESTOP, 'e-stop is latched: release it and call ~/estop_reset.')
RELEASED = Freshness(Reason.ESTOP, 'e-stop is unlatched: call ~/reset to move again.')
DISABLED = Freshness(Reason.DISABLED, 'disabled: call ~/enable with true.')
OK = Freshness()
