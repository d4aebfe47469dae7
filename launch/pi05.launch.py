"""Pi0.5 on a robot: ``ros2 launch vla_trt_ros pi05.launch.py platform:=thor num_steps:=3``.

``--show-args`` lists the arguments. What they start is described in vla_trt_ros.bringup, which
``vla-trt up`` shares.
"""

import sys
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import Action, LaunchContext, LaunchDescription
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
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from vla_trt_ros.bringup import ARGUMENTS, Bringup, Process, describe, parse
from vla_trt_ros.errors import ConfigError


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


def _start(context: LaunchContext) -> list[Action]:
    values = {a.name: LaunchConfiguration(a.name).perform(context) for a in ARGUMENTS}
    system = describe({**_typed(context), **values})
    for process in system.processes:
        _check_installed(process)
    actions: list[Action] = [SetEnvironmentVariable(k, v) for k, v in system.environment.items()]
    actions += [LogInfo(msg=note) for note in system.notes]
    for process in system.processes:
        node = _node(system, process)
        actions.append(node)
        if process.essential:
            ended = OnProcessExit(target_action=node, on_exit=_stop_all)
            actions.append(RegisterEventHandler(ended))
    return actions


def _typed(context: LaunchContext) -> dict[str, str]:
    """The words after ``pi05.launch.py``: launch itself takes a misspelt name without a word.

    Empty where another launch file includes this one, since the words are then that file's.
    """
    if Path(__file__).name not in {Path(word).name for word in sys.argv}:
        return {}
    return parse([w for w in context.argv if not w.startswith('launch-prefix')])


def _check_installed(process: Process) -> None:
    """Launch would find out after it started the others, and leave those running."""
    remedy = 'build this package again'
    if process.package != 'vla_trt_ros':
        remedy = f'install the package {process.package} of your ROS distribution'
    try:
        folder = Path(get_package_prefix(process.package)) / 'lib' / process.package
    except PackageNotFoundError:
        folder = None
    if folder is None or not (folder / process.executable).exists():
        raise ConfigError(f'{process.executable} is not installed: {remedy}.')


def _node(system: Bringup, process: Process) -> Node:
    files = [system.params_file] if system.params_file else []
    return Node(
        package=process.package,
        executable=process.executable,
        name=None if process.composed else process.name,
        namespace=system.namespace,
        parameters=[*files, dict(process.parameters)] if process.parameters else files,
        arguments=list(process.arguments),
        ros_arguments=['--log-level', system.log_level],
        output='screen',
        sigterm_timeout='10',
    )


def _stop_all(event: ProcessExited, context: LaunchContext) -> list[Action]:
    """A system that lost a part is not safe to leave half running."""
    if context.is_shutdown:
        return []
    if event.returncode:
        # Launch stops everything on an error, and ends with status 1.
        raise RuntimeError(f'{event.process_name} ended with status {event.returncode}')
    return [EmitEvent(event=Shutdown(reason=f'{event.process_name} ended'))]
