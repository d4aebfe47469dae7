"""Observations from a rosbag, through the same conversions as live topics. Needs the package
rosbags, which reads ROS 1 and ROS 2 bags without ROS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla_trt_ros.actions.layout import pick_joints
from vla_trt_ros.bundle import Bundle
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import CameraFrame, JointSample
from vla_trt_ros.errors import BadInput, ConfigError
from vla_trt_ros.export.frames import Frames, is_judged, observation, spread
from vla_trt_ros.messages import frame_from_compressed, frame_from_image, joints_from_msg


def bag_frames(path: Path, bundle: Bundle, robot: RobotConfig, count: int, prompt: str) -> Frames:
    """A frame per picture of the first view: the newest picture of every view, and joint state.

    ConfigError if the package or a topic is missing.
    """
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        raise ConfigError(f'{path}: reading a bag needs rosbags: pip install rosbags.') from error
    topics = {robot.cameras[view].topic: view for view in bundle.views if view in robot.cameras}
    moments: list[tuple[dict[str, CameraFrame], JointSample]] = []
    frames: dict[str, CameraFrame] = {}
    joints: JointSample | None = None
    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        by_topic = {_bare(c.topic): c for c in reader.connections}
        wanted = {_bare(t): v for t, v in topics.items()} | {_bare(robot.joint_states_topic): ''}
        missing = [t for t in wanted if t not in by_topic]
        if missing:
            raise ConfigError(
                f'{path} lacks topic {missing[0]!r}; it holds '
                f'{", ".join(sorted(by_topic)) or "nothing"}.'
            )
        chosen = [by_topic[topic] for topic in wanted]
        for connection, stamp, raw in reader.messages(connections=chosen):
            view = wanted[_bare(connection.topic)]
            message = reader.deserialize(raw, connection.msgtype)
            if not view:
                joints = joints_from_msg(message, stamp)
            elif (frame := _frame(message, connection.msgtype, stamp)) is not None:
                frames[view] = frame
                if view == bundle.views[0] and joints and len(frames) == len(topics):
                    moments.append((dict(frames), joints))
    observations = []
    chosen = spread(len(moments), count)
    for i in chosen:
        pictures, sample = moments[i]
        state = pick_joints(sample, bundle.layout.state)
        observations.append(observation(f'{path}: frame {i}', bundle, pictures, state, prompt))
    judged = tuple(is_judged(i, len(moments)) for i in chosen)
    return Frames(tuple(observations), str(path), judged)


def _bare(topic: str) -> str:
    return topic.lstrip('/')


def _frame(message: Any, kind: str, stamp: int) -> CameraFrame | None:
    convert = frame_from_compressed if 'Compressed' in kind else frame_from_image
    try:
        return convert(message, stamp)
    except BadInput:  # a live node counts it and goes on; so does this
        return None
