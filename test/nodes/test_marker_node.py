"""Markers of a real policy's chunks; a node that does nothing while nobody looks."""

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

from ros_system import Client, running
from visualization_msgs.msg import Marker, MarkerArray

from vla_trt_ros.datatypes import Reason, State
from vla_trt_ros.msg import ActionChunk, PolicyStatus
from vla_trt_ros.nodes.marker_node import status_lines
from vla_trt_ros.nodes.publish import COMMAND_QOS

pytestmark = pytest.mark.ros


def test_path_hand_and_status_while_somebody_looks_and_nothing_otherwise():
    with (
        running('pattern_node', width=64, height=64),
        running('policy_node', num_steps=1, prompt='reach the goal'),
        running('marker_node', rate=20.0),
        Client() as client,
    ):
        chunks = client.hear(ActionChunk, 'action_chunk', COMMAND_QOS)
        client.until(lambda: chunks, 30, 'a chunk')
        infos = client.node.get_subscriptions_info_by_topic

        def readers():
            return [i.node_name for i in infos('action_chunk')].count('markers')

        client.until(lambda: client.node.count_publishers('markers/chunk'), what='the node')
        assert readers() == 0
        subscription = client.node.create_subscription(
            MarkerArray, 'markers/chunk', lambda msg: arrays.append(msg), COMMAND_QOS
        )
        arrays = []

        def drawn():
            found = {m.ns: m for m in arrays[-1].markers} if arrays else {}
            return found if len(found) == 4 and 'RUNNING' in found['status'].text else None

        client.until(drawn, 10, 'all four markers')
        found = drawn()
        assert set(found) == {'path', 'rows', 'hand', 'status'}
        assert found['path'].type == Marker.LINE_STRIP
        assert {m.header.frame_id for m in found.values()} == {'base_link'}
        points = found['rows'].points
        assert 1 < len(points) <= 10
        assert len(found['path'].colors) == len(points)
        # The pattern's arm stands in the middle of its range, and rows begin where it is.
        hand = found['hand'].pose.position
        assert (hand.x, hand.y, hand.z) == pytest.approx((0.0, 0.6865, 0.2725))
        assert abs(points[0].x - hand.x) < 0.1
        assert '"reach the goal", 1 steps' in found['status'].text
        assert 'policy: RUNNING' in found['status'].text
        assert 'command: not heard' in found['status'].text
        client.node.destroy_subscription(subscription)
        client.until(lambda: readers() == 0, 10, 'the node to fall silent')


def test_status_says_why_in_its_colour():
    holding = PolicyStatus(node='command', state=int(State.HOLDING), reason=int(Reason.ESTOP))
    text, colour = status_lines({'command': holding})
    assert text.splitlines() == ['policy: not heard', 'command: HOLDING (ESTOP), 0/s']
    assert colour != status_lines({})[1]
