"""State and Reason are PolicyStatus.msg's constants, all of them."""

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

from vla_trt_ros.datatypes import Reason, State
from vla_trt_ros.msg import PolicyStatus

pytestmark = pytest.mark.ros


def test_numbers_are_the_message_s():
    constants = {n: getattr(PolicyStatus, n) for n in dir(type(PolicyStatus)) if n.isupper()}
    told = {n: v for n, v in constants.items() if isinstance(v, int)}
    own = {e.name: e.value for kind in (State, Reason) for e in kind}
    assert len(own) == len(State) + len(Reason)
    assert told == own
