"""What is worth recording of a robot, and lists of topics as ``ros2 bag`` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vla_trt_ros.config import RobotConfig
from vla_trt_ros.errors import ConfigError

OURS = (
    'action_chunk',
    'policy/info',
    'policy/prompt',
    'policy/status',
    'policy/timing',
    'command/status',
    'sim/task_prompt',
    'sim/success',
    'estop',
    'tf',
    'tf_static',
    'robot_description',
)
"""Besides what the robot file names. tf and robot_description are for whoever looks at the bag."""


def topics_of(robot: RobotConfig) -> tuple[str, ...]:
    """Cameras, joint states and commands of ``robot``, and our own topics."""
    cameras = (camera.topic for camera in robot.cameras.values())
    named = (*cameras, robot.joint_states_topic, robot.controller.topic, *OURS)
    return tuple(dict.fromkeys(named))


def read_list(path: Path) -> tuple[str, ...]:
    """The topics in a parameter file of rosbag2's recorder, such as config/record.yaml: under any
    node, ``ros__parameters: {record: {topics: [...]}}``. A plain YAML list is taken, too.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f'{path} cannot be read as a list of topics ({error}).') from error
    topics = content if isinstance(content, list) else _nested(content)
    if not topics or not all(isinstance(topic, str) and topic for topic in topics):
        raise ConfigError(
            f'{path} lists no topics: write a YAML list of them, or parameters as in '
            'config/record.yaml.'
        )
    return tuple(dict.fromkeys(topics))


def command_line(topics: Sequence[str]) -> str:
    """What records the same with ``ros2 bag``."""
    return f'ros2 bag record --storage mcap --topics {" ".join(topics)}'


def _nested(content: Any) -> Any:
    try:
        (parameters,) = content.values()
        return parameters['ros__parameters']['record']['topics']
    except (AttributeError, ValueError, KeyError, TypeError):
        return None
