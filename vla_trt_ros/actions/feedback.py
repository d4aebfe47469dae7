"""What the robot says of itself: is it fresh, where is it, is it where it was sent."""

from __future__ import annotations

import numpy as np

from vla_trt_ros.actions.layout import pick_joints
from vla_trt_ros.actions.limits import Limits
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import Float64Array, JointSample, Reason
from vla_trt_ros.errors import BadState
from vla_trt_ros.freshness import Freshness
from vla_trt_ros.joints import JointHistory


class Feedback:
    """The newest good joint states of the robot's own joints."""

    def __init__(self, robot: RobotConfig, limits: Limits) -> None:
        self._limits = limits
        self._joints = JointHistory(robot.joint_states_topic, robot.safety.max_state_age_ms)

    def offer(self, sample: JointSample) -> str:
        """Take ``sample``; '' or the counter of what is wrong with it.

        One that lacks joints is another publisher's and does no harm. One that names them all but
        doubles a name or holds NaN or Inf makes `freshness` BAD_STATE until a good one comes.
        """
        try:
            pick_joints(sample, self._limits.names)
        except BadState as error:
            self.refuse(error, complete=set(self._limits.names) <= set(sample.names))
            return 'state_bad'
        return '' if self._joints.offer(sample) else 'state_not_rising'

    def refuse(self, error: BadState, *, complete: bool = False) -> None:
        """A sample that cannot be used; ``complete`` if it names all joints of the robot."""
        self._joints.reject(str(error), at_once=complete)

    def forget(self) -> None:
        """Drop what came so far: time jumped."""
        self._joints.reset()

    def freshness(self, now_ns: int) -> Freshness:
        """Whether the robot may be moved on what it said last."""
        return self._joints.freshness(now_ns)

    def measured(self) -> tuple[Float64Array, int] | None:
        """Position [D] and stamp of the newest good sample, however old."""
        sample = self._joints.newest()
        if sample is None:
            return None
        return pick_joints(sample, self._limits.names), sample.stamp_ns

    def tracking(self, measured: Float64Array, commanded: Float64Array) -> Freshness:
        """Whether ``measured`` [D] is within tracking_tolerance of ``commanded`` [D]."""
        error = np.abs(measured - commanded)
        worst = int(np.argmax(error / self._limits.tracking_tolerance))
        tolerance = float(self._limits.tracking_tolerance[worst])
        if error[worst] <= tolerance:
            return Freshness()
        return Freshness(
            Reason.TRACKING_ERROR,
            f'{self._limits.names[worst]} is at {measured[worst]:.3f}, commanded '
            f'{commanded[worst]:.3f} (tracking_tolerance {tolerance:g}): is something in its way?',
        )
