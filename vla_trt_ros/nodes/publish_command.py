"""Command -> controller messages."""

from __future__ import annotations

from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_trt_ros.datatypes import NS, Command
from vla_trt_ros.nodes.publish import duration_msg, time_msg


def trajectory_to_msg(command: Command) -> JointTrajectory:
    """All points of ``command``, for ros2_control's joint_trajectory_controller."""
    msg = JointTrajectory(joint_names=list(command.names))
    msg.header.stamp = time_msg(command.stamp_ns)
    rows = zip(command.positions, command.velocities, command.times, strict=True)
    msg.points = [
        JointTrajectoryPoint(
            positions=positions.tolist(),
            velocities=velocities.tolist(),
            time_from_start=duration_msg(round(seconds * NS)),
        )
        for positions, velocities, seconds in rows
    ]
    return msg


def position_to_msg(command: Command) -> Float64MultiArray:
    """The first row of ``command``, for forward_command_controller; it carries no names."""
    return Float64MultiArray(data=command.positions[0].tolist())
