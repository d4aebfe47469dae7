"""ROS messages into datatypes by field access alone: no ROS import, so that live topics and bags
take the same path. Anything that cannot be used raises a BadInput that says why.

Image rows are checked here against the message's own header; what the bytes mean is camera/'s.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vla_trt_ros.camera.decode import check_rows
from vla_trt_ros.camera.encodings import COMPRESSED
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import (
    NS,
    ActionChunk,
    ActionSpace,
    CameraFrame,
    ChunkFlag,
    Command,
    CommandKind,
    JointSample,
    LabelledBox,
    Uint8Array,
)
from vla_trt_ros.errors import BadAction, BadDetections, BadImage, BadInput, BadState


def stamp_ns(stamp: Any) -> int:
    """builtin_interfaces/Time or Duration to integer nanoseconds."""
    return int(stamp.sec) * NS + int(stamp.nanosec)


def bytes_view(data: Any) -> Uint8Array:
    """The bytes of a uint8[] field as an array that shares its memory: ``array.array`` of a live
    message, NumPy array of a bag.
    """
    return np.frombuffer(data, dtype=np.uint8)


def frame_from_image(msg: Any, receive_ns: int) -> CameraFrame:
    """sensor_msgs/Image to CameraFrame, without a copy.

    Raises BadImage for an unknown encoding, zero size, a step shorter than a row, or fewer bytes
    than step x height. Bytes behind the last row are allowed and ignored.
    """
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    data = bytes_view(msg.data)
    check_rows(msg.encoding, height, width, step, data.size)
    return CameraFrame(
        stamp_ns=_header_stamp(msg, BadImage),
        receive_ns=receive_ns,
        frame_id=msg.header.frame_id,
        encoding=msg.encoding,
        height=height,
        width=width,
        step=step,
        data=data,
        big_endian=bool(msg.is_bigendian),
    )


def frame_from_compressed(msg: Any, receive_ns: int) -> CameraFrame:
    """sensor_msgs/CompressedImage to CameraFrame, not decoded yet: height = width = 0.

    ``format`` is 'jpeg', 'png' or image_transport's 'bgr8; jpeg compressed bgr8', else BadImage.
    """
    text = msg.format.lower()
    kind = next((k for k in COMPRESSED if k in text or (k == 'jpeg' and 'jpg' in text)), None)
    if kind is None:
        known = ', '.join(COMPRESSED)
        raise BadImage(f'compressed format {msg.format!r} is unknown; known: {known}.')
    data = bytes_view(msg.data)
    if data.size == 0:
        raise BadImage('compressed image is empty.')
    return CameraFrame(
        stamp_ns=_header_stamp(msg, BadImage),
        receive_ns=receive_ns,
        frame_id=msg.header.frame_id,
        encoding=kind,
        height=0,
        width=0,
        step=0,
        data=data,
    )


def joints_from_msg(msg: Any, receive_ns: int) -> JointSample:
    """sensor_msgs/JointState to JointSample. Raises BadState where names and positions differ in
    number; values are judged by actions/layout, which knows the joints that count.
    """
    positions = np.asarray(msg.position, dtype=np.float64)
    names = tuple(msg.name)
    if positions.size != len(names):
        raise BadState(f'joint_states has {len(names)} names and {positions.size} positions.')
    velocities = np.asarray(msg.velocity, dtype=np.float64)
    return JointSample(
        stamp_ns=_header_stamp(msg, BadState),
        receive_ns=receive_ns,
        names=names,
        positions=positions,
        velocities=velocities if velocities.size == positions.size else None,
    )


def chunk_from_msg(msg: Any) -> ActionChunk:
    """vla_trt_ros/ActionChunk to its datatype. Raises BadAction for another schema version, or
    where names, horizon and the number of values do not agree.
    """
    if msg.schema_version != 1:
        raise BadAction(f'ActionChunk schema {msg.schema_version}: this node reads schema 1.')
    names = tuple(msg.names)
    shape = (int(msg.horizon), len(names))
    actions = np.asarray(msg.actions, dtype=np.float32)
    if 0 in shape or actions.size != shape[0] * shape[1]:
        raise BadAction(
            f'ActionChunk holds {actions.size} values for {shape[0]} rows of {shape[1]} joints.'
        )
    step = stamp_ns(msg.step_dt)
    if step <= 0:
        raise BadAction(f'ActionChunk step_dt is {step} ns: it must be above 0.')
    velocities = np.asarray(msg.velocities, dtype=np.float32)
    try:
        action_space = ActionSpace(msg.action_space)
    except ValueError:
        raise BadAction(f'ActionChunk action_space {msg.action_space} is unknown.') from None
    return ActionChunk(
        start_ns=stamp_ns(msg.header.stamp),
        observation_ns=stamp_ns(msg.observation_stamp),
        step_ns=step,
        names=names,
        actions=actions.reshape(shape),
        chunk_id=int(msg.chunk_id),
        step_index0=int(msg.step_index0),
        velocities=velocities.reshape(shape) if velocities.size == actions.size else None,
        action_space=action_space,
        valid_from=int(msg.valid_from),
        execute_count=int(msg.execute_count),
        num_steps=int(msg.num_steps),
        prompt_hash=int(msg.prompt_hash),
        policy_hash=msg.policy_hash,
        run_id=bytes(bytearray(msg.run_id.uuid)),
        flags=ChunkFlag(msg.flags),
        clamped=int(msg.clamped),
    )


def command_from_trajectory(msg: Any, receive_ns: int) -> Command:
    """trajectory_msgs/JointTrajectory to Command. A stamp of 0 means on arrival. BadAction where
    it has no points, or points with another number of positions than joints.
    """
    names = tuple(msg.joint_names)
    if not len(msg.points):
        raise BadAction('trajectory is empty: it has no points.')
    for k, point in enumerate(msg.points):
        if len(point.positions) != len(names):
            raise BadAction(
                f'point {k} has {len(point.positions)} positions for {len(names)} joints.'
            )
    positions = np.array([p.positions for p in msg.points], np.float64)
    moving = all(len(p.velocities) == len(names) for p in msg.points)
    velocities = np.array([p.velocities for p in msg.points], np.float64) if moving else None
    return Command(
        kind=CommandKind.TRAJECTORY,
        stamp_ns=stamp_ns(msg.header.stamp) or receive_ns,
        names=names,
        positions=positions,
        velocities=np.zeros_like(positions) if velocities is None else velocities,
        times=np.array([stamp_ns(p.time_from_start) / NS for p in msg.points], np.float64),
    )


def command_from_positions(msg: Any, receive_ns: int, robot: RobotConfig) -> Command:
    """std_msgs/Float64MultiArray to Command: one row in the order of ``robot``, which is to be
    reached a control step after it came. BadAction for another number of values.
    """
    row = np.asarray(msg.data, np.float64)
    if row.shape != (len(robot.joints),):
        raise BadAction(
            f'command has {row.size} values for {len(robot.joints)} joints '
            f'({", ".join(robot.joint_names)}).'
        )
    return Command(
        kind=CommandKind.POSITION,
        stamp_ns=receive_ns,
        names=robot.joint_names,
        positions=row[None],
        velocities=np.zeros((1, row.size)),
        times=np.array([robot.step_ns / NS]),
    )


def boxes_from_msg(msg: Any) -> tuple[int, tuple[LabelledBox, ...]]:
    """vision_msgs/Detection2DArray to the stamp of its picture and a box for every label that
    something in it was given. Raises BadDetections for NaN or Inf.
    """
    boxes = []
    for detection in msg.detections:
        centre, box = detection.bbox.center.position, detection.bbox
        half_x, half_y = float(box.size_x) / 2, float(box.size_y) / 2
        for result in detection.results:
            label, score = result.hypothesis.class_id, float(result.hypothesis.score)
            numbers = (
                centre.x - half_x,
                centre.y - half_y,
                centre.x + half_x,
                centre.y + half_y,
            )
            if not all(map(math.isfinite, (score, *numbers))):
                raise BadDetections(
                    f'detection of {label!r} holds NaN or Inf: check the detector with its bundle.'
                )
            boxes.append(LabelledBox(label, score, *numbers))
    return _header_stamp(msg, BadDetections), tuple(boxes)


def _header_stamp(msg: Any, error: type[BadInput]) -> int:
    stamp = stamp_ns(msg.header.stamp)
    if stamp <= 0:
        raise error('header.stamp is zero: the driver must stamp its messages, age is unknown.')
    return stamp
