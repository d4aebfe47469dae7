"""Datatypes into recorded messages, without ROS: the inverse of `messages.py` for bags."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_trt_ros.bags.decoding import own_types
from vla_trt_ros.bags.writer import BagWriter, qos_text
from vla_trt_ros.datatypes import NS, CameraFrame, Command, CommandKind, JointSample

_IMAGE = 'sensor_msgs/msg/Image'
_JOINTS = 'sensor_msgs/msg/JointState'
_TRAJECTORY = 'trajectory_msgs/msg/JointTrajectory'
_POSITIONS = 'std_msgs/msg/Float64MultiArray'
_TEXT = 'std_msgs/msg/String'


class Composer:
    """Writes to ``bag`` what nodes would publish, each recorded when it is stamped."""

    def __init__(self, bag: BagWriter) -> None:
        self._bag = bag
        self._store = own_types()

    def image(self, topic: str, frame: CameraFrame) -> None:
        """A raw frame as sensor_msgs/Image."""
        message = self._new(
            _IMAGE,
            self._header(frame.stamp_ns, frame.frame_id),
            frame.height,
            frame.width,
            frame.encoding,
            int(frame.big_endian),
            frame.step,
            frame.data,
        )
        self._write(topic, _IMAGE, frame.stamp_ns, message)

    def joints(self, topic: str, sample: JointSample) -> None:
        """Joint states as sensor_msgs/JointState."""
        none = np.zeros(0)
        velocities = none if sample.velocities is None else sample.velocities
        message = self._new(
            _JOINTS,
            self._header(sample.stamp_ns, ''),
            list(sample.names),
            sample.positions,
            velocities,
            none,
        )
        self._write(topic, _JOINTS, sample.stamp_ns, message)

    def command(self, topic: str, command: Command) -> None:
        """A command as the controller of its kind takes it."""
        if command.kind is CommandKind.POSITION:
            layout = self._new('std_msgs/msg/MultiArrayLayout', [], 0)
            message = self._new(_POSITIONS, layout, command.positions[0])
            self._write(topic, _POSITIONS, command.stamp_ns, message)
            return
        none = np.zeros(0)
        points = [
            self._new(
                'trajectory_msgs/msg/JointTrajectoryPoint',
                positions,
                velocities,
                none,
                none,
                self._time('Duration', round(seconds * NS)),
            )
            for positions, velocities, seconds in zip(
                command.positions, command.velocities, command.times, strict=True
            )
        ]
        header = self._header(command.stamp_ns, '')
        message = self._new(_TRAJECTORY, header, list(command.names), points)
        self._write(topic, _TRAJECTORY, command.stamp_ns, message)

    def text(self, topic: str, time_ns: int, text: str) -> None:
        """std_msgs/String, latched, as prompts are."""
        self._write(topic, _TEXT, time_ns, self._new(_TEXT, text), latched=True)

    def _write(
        self, topic: str, kind: str, time_ns: int, message: Any, *, latched: bool = False
    ) -> None:
        self._bag.add(topic, kind, qos=qos_text(reliable=True, latched=latched))
        self._bag.write(topic, time_ns, self._store.serialize_cdr(message, kind))

    def _new(self, kind: str, *fields: Any) -> Any:
        return self._store.types[kind](*fields)

    def _time(self, kind: str, ns: int) -> Any:
        return self._new(f'builtin_interfaces/msg/{kind}', ns // NS, ns % NS)

    def _header(self, ns: int, frame_id: str) -> Any:
        return self._new('std_msgs/msg/Header', self._time('Time', ns), frame_id)
