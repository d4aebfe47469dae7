"""Small bags of the metaworld robot, written by rosbags: what a recorder might leave."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_trt_ros.bags.decoding import own_types
from vla_trt_ros.config import load_robot
from vla_trt_ros.datatypes import NS

ROBOT = load_robot('metaworld')
BASE, WRIST = (ROBOT.cameras[view].topic for view in ('base', 'wrist'))
JOINTS = ROBOT.joint_states_topic
COMMAND = ROBOT.controller.topic
BEGIN_NS = 1_700_000_000 * NS
STEP_NS = ROBOT.step_ns
IMAGE, STATES = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/JointState'
TRAJECTORY, TEXT = 'trajectory_msgs/msg/JointTrajectory', 'std_msgs/msg/String'

STORE = own_types()


def make(kind, *fields):
    return STORE.types[kind](*fields)


def stamped(ns, frame_id='camera'):
    return make(
        'std_msgs/msg/Header', make('builtin_interfaces/msg/Time', ns // NS, ns % NS), frame_id
    )


def image(ns, shade, height=24, width=32):
    data = np.full(height * width * 3, shade % 256, np.uint8)
    data[:3] = 255 - shade % 256
    return make(IMAGE, stamped(ns), height, width, 'rgb8', 0, 3 * width, data)


def states(ns, positions, names=ROBOT.joint_names):
    empty = np.zeros(0)
    return make(STATES, stamped(ns, ''), list(names), np.asarray(positions, float), empty, empty)


def trajectory(ns, positions, names=ROBOT.joint_names):
    empty = np.zeros(0)
    due = make('builtin_interfaces/msg/Duration', 0, STEP_NS)
    point = make(
        'trajectory_msgs/msg/JointTrajectoryPoint',
        np.asarray(positions, float),
        empty,
        empty,
        empty,
        due,
    )
    return make(TRAJECTORY, stamped(ns, ''), list(names), [point])


def position_at(k):
    return [0.1, 0.5, 0.2, k / 100]


@dataclass
class Script:
    """What is recorded: (topic, type, log time, message), in any order."""

    rows: list[tuple[str, str, int, Any]] = field(default_factory=list)

    def add(self, topic, kind, log_ns, message):
        self.rows.append((topic, kind, log_ns, message))

    def steps(self, count=20, *, begin_ns=BEGIN_NS, skip=(), rename=None):
        """``count`` control steps: joint states, both pictures, a command."""
        rename = rename or {}
        for k in range(count):
            ns = begin_ns + k * STEP_NS
            for topic, kind, message in (
                (JOINTS, STATES, states(ns, position_at(k))),
                (BASE, IMAGE, image(ns, 10 * k)),
                (WRIST, IMAGE, image(ns, 10 * k + 5)),
                (COMMAND, TRAJECTORY, trajectory(ns, position_at(k + 1))),
            ):
                if topic not in skip:
                    self.add(rename.get(topic, topic), kind, ns, message)
        return self

    def write(self, path, *, sqlite=False, mode='', split=0, definitions=True):
        """As the bag ``path``: ``mode`` of compression '', 'message' or 'file' or 'storage'."""
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        writer = Writer(
            path,
            version=9,
            storage_plugin=StoragePlugin.SQLITE3 if sqlite else StoragePlugin.MCAP,
        )
        if mode:
            writer.set_compression(CompressionMode[mode.upper()], CompressionFormat.ZSTD)
        with writer:
            links = {}
            for topic, kind, log_ns, message in self.rows:
                if topic not in links:
                    text = {} if definitions else {'msgdef': '', 'rihs01': 'RIHS01_none'}
                    links[topic] = writer.add_connection(topic, kind, typestore=STORE, **text)
                raw = message if isinstance(message, bytes) else STORE.serialize_cdr(message, kind)
                writer.write(links[topic], log_ns, raw)
        return path


def storage_file(path):
    """The one storage file of a bag's folder."""
    (found,) = (p for p in path.iterdir() if p.name != 'metadata.yaml')
    return found


def cut(path, share):
    """Leave the first ``share`` of a file: what a killed recorder or a broken copy leaves."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
