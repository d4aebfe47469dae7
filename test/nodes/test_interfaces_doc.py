"""docs/interfaces.md has the parameters that the nodes declare, word for word."""

from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")

pytest.importorskip('vision_msgs', reason='needs vision_msgs: pip install . brings it')

from vla_trt_ros.nodes import (
    command_node,
    marker_node,
    pattern_node,
    perception_node,
    policy_node,
    sim_node,
)
from vla_trt_ros.nodes.params import table

pytestmark = pytest.mark.ros

PAGE = Path(__file__).parents[2] / 'docs' / 'interfaces.md'


@pytest.mark.parametrize(
    'node', [policy_node, command_node, perception_node, marker_node, sim_node, pattern_node]
)
def test_parameters_on_the_page_are_those_declared(node):
    expected = table(node.PARAMS)
    assert expected in PAGE.read_text(encoding='utf-8'), f'paste into the page:\n{expected}'
