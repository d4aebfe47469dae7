"""Markers for rviz: the path that the newest chunk would take the hand, the hand, and the status.

A node of its own. While nobody subscribes to its markers it subscribes to nothing itself.
"""

from __future__ import annotations

import sys

from geometry_msgs.msg import Point
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from vla_trt_ros.config import load_robot
from vla_trt_ros.datatypes import ActionChunk, Reason, State
from vla_trt_ros.errors import BadInput
from vla_trt_ros.messages import chunk_from_msg, joints_from_msg
from vla_trt_ros.msg import ActionChunk as ActionChunkMsg
from vla_trt_ros.msg import PolicyStatus
from vla_trt_ros.nodes.params import Param, declare
from vla_trt_ros.nodes.publish import COMMAND_QOS, LATCHED_QOS, STATE_QOS, time_msg
from vla_trt_ros.nodes.run import run_node
from vla_trt_ros.viz.tip_path import row_colours, tip_at, tip_path

PARAMS = (
    Param('robot', 'metaworld', 'robot file, a name in config/robots or a path'),
    Param('rate', 10.0, 'marker arrays per second, Hz', bounds=(0.5, 60.0)),
)
_LOOK = 0.5  # seconds between looks for a listener
_COLOURS = {
    State.RUNNING: (0.2, 0.8, 0.3),
    State.HOLDING: (0.95, 0.6, 0.1),
    State.STOPPED: (0.9, 0.2, 0.2),
    State.ESTOPPED: (0.9, 0.2, 0.2),
}


class MarkerNode(Node):
    """Draws what it heard last, `rate` times a second, for as long as somebody listens."""

    def __init__(self) -> None:
        super().__init__('markers')
        params = declare(self, PARAMS)
        self._robot = load_robot(params['robot'])
        self._publisher = self.create_publisher(MarkerArray, '~/chunk', COMMAND_QOS)
        self._subscriptions: list[Subscription] = []
        self._forget()
        self.create_timer(_LOOK, self._look_for_listeners)
        self._draw_timer = self.create_timer(1.0 / params['rate'], self._draw)
        self._draw_timer.cancel()
        if not self._robot.tip:
            self.get_logger().info(
                f'robot {self._robot.name} names no tip: no path is drawn, the status is.'
            )

    def _forget(self) -> None:
        self._chunk: ActionChunk | None = None
        self._joints: JointState | None = None
        self._status: dict[str, PolicyStatus] = {}

    def _look_for_listeners(self) -> None:
        listened = self._publisher.get_subscription_count() > 0
        if listened and not self._subscriptions:
            subscribe = self.create_subscription
            topic = self._robot.joint_states_topic
            self._subscriptions = [
                subscribe(ActionChunkMsg, 'action_chunk', self._on_chunk, COMMAND_QOS),
                subscribe(JointState, topic, self._on_joints, STATE_QOS),
                subscribe(PolicyStatus, 'policy/status', self._on_status, LATCHED_QOS),
                subscribe(PolicyStatus, 'command/status', self._on_status, LATCHED_QOS),
            ]
            self._draw_timer.reset()
        elif not listened and self._subscriptions:
            self._draw_timer.cancel()
            for subscription in self._subscriptions:
                self.destroy_subscription(subscription)
            self._subscriptions = []
            self._forget()

    def _on_chunk(self, msg: ActionChunkMsg) -> None:
        try:
            self._chunk = chunk_from_msg(msg)
        except BadInput as error:
            self.get_logger().warning(f'chunk: {error}', throttle_duration_sec=5.0)

    def _on_joints(self, msg: JointState) -> None:
        self._joints = msg

    def _on_status(self, msg: PolicyStatus) -> None:
        self._status[msg.node] = msg

    def _draw(self) -> None:
        now_ns = self.get_clock().now().nanoseconds
        self._publisher.publish(MarkerArray(markers=[*self._path(now_ns), *self._words(now_ns)]))

    def _path(self, now_ns: int) -> list[Marker]:
        rows = tip_path(self._chunk, self._robot) if self._chunk is not None else ()
        if not len(rows):
            return []
        points = [Point(x=x, y=y, z=z) for x, y, z in rows.tolist()]
        colours = [_colour(c) for c in row_colours(len(rows)).tolist()]
        line = self._marker(now_ns, 'path', Marker.LINE_STRIP, 0.006)
        dots = self._marker(now_ns, 'rows', Marker.SPHERE_LIST, 0.014)
        for marker in (line, dots):
            marker.points, marker.colors = points, colours
        # rviz draws no line of one point.
        markers = [line, dots] if len(points) > 1 else [dots]
        try:
            here = tip_at(joints_from_msg(self._joints, 0), self._robot) if self._joints else None
        except BadInput:
            here = None
        if here is not None:
            hand = self._marker(now_ns, 'hand', Marker.SPHERE, 0.03)
            hand.pose.position = Point(x=here[0], y=here[1], z=here[2])
            hand.color = _colour((0.3, 0.55, 0.95))
            markers.append(hand)
        return markers

    def _words(self, now_ns: int) -> list[Marker]:
        lines, colour = status_lines(self._status)
        text = self._marker(now_ns, 'status', Marker.TEXT_VIEW_FACING, 0.04)
        text.text = lines
        text.color = _colour(colour)
        middle = [
            (j.lower + j.upper) / 2
            for n in self._robot.tip
            for j in self._robot.joints
            if j.name == n
        ]
        x, y, _ = middle or (0.0, 0.0, 0.0)
        top = [
            j.upper for j in self._robot.joints if self._robot.tip and j.name == self._robot.tip[2]
        ]
        text.pose.position = Point(x=x, y=y, z=(top[0] if top else 0.5) + 0.1)
        return [text]

    def _marker(self, now_ns: int, namespace: str, kind: int, size: float) -> Marker:
        marker = Marker(ns=namespace, type=kind, action=Marker.ADD)
        marker.header.stamp = time_msg(now_ns)
        marker.header.frame_id = self._robot.frame
        marker.pose.orientation.w = 1.0
        marker.scale.x = marker.scale.y = marker.scale.z = size
        # What is not drawn again goes away by itself.
        marker.lifetime.nanosec = 500_000_000
        return marker


def status_lines(status: dict[str, PolicyStatus]) -> tuple[str, tuple[float, float, float]]:
    """What the nodes said last, a line each, and the colour of the command node's state."""
    lines = []
    for node in ('policy', 'command'):
        msg = status.get(node)
        if msg is None:
            lines.append(f'{node}: not heard')
            continue
        why = f' ({Reason(msg.reason).name})' if msg.reason else ''
        lines.append(f'{node}: {State(msg.state).name}{why}, {msg.rate_hz:.0f}/s')
    policy, command = status.get('policy'), status.get('command')
    if policy is not None and policy.prompt:
        lines.insert(0, f'"{policy.prompt}", {policy.num_steps} steps')
    state = State(command.state) if command is not None else State.UNKNOWN
    return '\n'.join(lines), _COLOURS.get(state, (0.7, 0.7, 0.7))


def _colour(rgb: tuple[float, float, float]) -> ColorRGBA:
    return ColorRGBA(r=rgb[0], g=rgb[1], b=rgb[2], a=1.0)


def main(args: list[str] | None = None) -> int:
    """Entry point of lib/vla_trt_ros/marker_node."""
    return run_node(MarkerNode, args)


if __name__ == '__main__':
    sys.exit(main())
