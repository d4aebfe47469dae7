"""Made-up recordings: events in a list, and bags of small pictures on disk."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from fakes import FakePolicy, joints, rgb_frame

from vla_trt_ros.config import PolicyConfig, load_platform, load_robot
from vla_trt_ros.datatypes import Command, CommandKind
from vla_trt_ros.errors import BadInput
from vla_trt_ros.pipeline import Pipeline

MS = 1_000_000
T0 = 1_700_000_000_000 * MS
ROBOT = load_robot('metaworld')


@dataclass
class Event:
    time_ns: int
    kind: str
    name: str
    content: Any

    @property
    def payload(self):
        if isinstance(self.content, BadInput):
            raise self.content
        return self.content


def pipeline(max_rate=30.0, deadline_ms=100.0, policy=None, prompt='reach the goal'):
    settings = PolicyConfig('pi05', 'fake', max_rate=max_rate, deadline_ms=deadline_ms)
    made = Pipeline(policy or FakePolicy(), ROBOT, load_platform('cpu'), settings)
    if prompt:
        made.set_prompt(prompt)
    return made


def pair(at_ns, arrived_ns=None, wrist_ns=None, hand_x=0.1):
    """Joint states and a frame of both views, exposed at ``at_ns``."""
    arrived = arrived_ns or at_ns
    hand = {'hand_x': hand_x, 'hand_y': 0.6, 'hand_z': 0.2, 'gripper': 1.0}
    return [
        Event(arrived, 'joints', 'joints', joints(at_ns, **hand)),
        Event(arrived, 'camera', 'base', rgb_frame(at_ns)),
        Event(arrived, 'camera', 'wrist', rgb_frame(wrist_ns or at_ns)),
    ]


def pairs(count, every_ms=50, **options):
    return [e for k in range(count) for e in pair(T0 + k * every_ms * MS, **options)]


def command(at_ns, hand_x, names=ROBOT.joint_names, **others):
    values = {'hand_x': hand_x, 'hand_y': 0.6, 'hand_z': 0.2, 'gripper': 1.0, **others}
    row = np.array([values[n] for n in names])
    return Command(
        CommandKind.POSITION, at_ns, tuple(names), row[None], 0 * row[None], np.array([0.05])
    )
