"""Pi0.5 on a robot: ``ros2 launch vla_trt_ros pi05.launch.py platform:=thor num_steps:=3``.

``--show-args`` lists the arguments. What they start is described in vla_trt_ros.bringup, which
``vla-trt up`` shares.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from vla_trt_ros.bringup import ARGUMENTS, describe


def generate_launch_description() -> LaunchDescription:
    """Declare every argument, then start what bringup describes for their values."""
    declared = [
        DeclareLaunchArgument(
            a.name,
            default_value=a.default,
            description=a.description,
            choices=list(a.choices) or None,
        )
        for a in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_start)])


def _start(context: LaunchContext) -> list:
    system = describe({a.name: LaunchConfiguration(a.name).perform(context) for a in ARGUMENTS})
    actions: list = [SetEnvironmentVariable(k, v) for k, v in system.environment.items()]
    actions += [LogInfo(msg=note) for note in system.notes]
    files = [system.params_file] if system.params_file else []
    for process in system.processes:
        node = Node(
            package=process.package,
            executable=process.executable,
            name=process.name,
            namespace=system.namespace,
            parameters=[*files, dict(process.parameters)] if process.parameters else files,
            arguments=list(process.arguments),
            ros_arguments=['--log-level', system.log_level],
            output='screen',
            sigterm_timeout='10',
        )
        # A system that lost a part is not safe to leave half running.
        end = OnProcessExit(target_action=node, on_exit=[EmitEvent(event=Shutdown())])
        actions += [node, RegisterEventHandler(end)]
    return actions
