"""Observations from a rosbag, through the same conversions as live topics. Needs the package
rosbags, which reads ROS 1 and ROS 2 bags without ROS.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vla_trt_ros.actions.layout import pick_joints
from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.bundle import Bundle
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import CameraFrame, JointSample
from vla_trt_ros.errors import BadInput
from vla_trt_ros.export.frames import Frames, is_judged, observation, spread

_Moment = tuple[dict[str, CameraFrame], JointSample, str]


def bag_frames(path: Path, bundle: Bundle, robot: RobotConfig, count: int, prompt: str) -> Frames:
    """A frame per picture of the first view: the newest picture of every view, and joint state.

    The bag is read twice, so that only the chosen pictures are in memory. Prompts of the recording
    come before ``prompt``. ConfigError if the package or a topic is missing.
    """
    views = [view for view in bundle.views if view in robot.cameras]
    bag = open_bag([path], robot, need=(*views, 'joints'))

    def moments() -> Iterator[_Moment]:
        frames: dict[str, CameraFrame] = {}
        joints: JointSample | None = None
        words = ''
        for event in bag.events('camera', 'joints', 'prompt'):
            try:
                payload = event.payload
            except BadInput:  # a live node counts it and goes on; so does this
                continue
            if event.kind == 'prompt':
                words = payload
            elif event.kind == 'joints':
                joints = payload
            elif event.name in views:
                frames[event.name] = payload
                if event.name == bundle.views[0] and joints and len(frames) == len(views):
                    yield dict(frames), joints, words

    total = sum(1 for _ in moments())
    chosen = spread(total, count)
    wanted = set(chosen)
    observations = [
        observation(
            f'{path}: frame {i}',
            bundle,
            pictures,
            pick_joints(sample, bundle.layout.state),
            words or prompt,
        )
        for i, (pictures, sample, words) in enumerate(moments())
        if i in wanted
    ]
    judged = tuple(is_judged(i, total) for i in chosen)
    return Frames(tuple(observations), str(path), judged)
