"""Messages of a recording, made again from its datatypes, and timing read back."""

from __future__ import annotations

import array

from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_trt_ros.camera.encodings import COMPRESSED
from vla_trt_ros.datatypes import CameraFrame, ChunkTiming, JointSample, StageTimes
from vla_trt_ros.msg import PolicyTiming
from vla_trt_ros.nodes.publish import time_msg


def image_msg(frame: CameraFrame) -> Image | CompressedImage:
    """The twin of ``messages.frame_from_image`` and ``frame_from_compressed``."""
    if frame.encoding in COMPRESSED:
        msg = CompressedImage(format=frame.encoding)
    else:
        msg = Image(
            height=frame.height,
            width=frame.width,
            encoding=frame.encoding,
            is_bigendian=int(frame.big_endian),
            step=frame.step,
        )
    msg.header.stamp = time_msg(frame.stamp_ns)
    msg.header.frame_id = frame.frame_id
    msg.data = array.array('B', frame.data.tobytes())
    return msg


def joints_msg(sample: JointSample) -> JointState:
    """The twin of ``messages.joints_from_msg``."""
    msg = JointState(name=list(sample.names))
    msg.header.stamp = time_msg(sample.stamp_ns)
    msg.position = array.array('d', sample.positions)
    if sample.velocities is not None:
        msg.velocity = array.array('d', sample.velocities)
    return msg


def timing_from_msg(msg: PolicyTiming) -> ChunkTiming:
    """The twin of ``publish.timing_to_msg``, for what a report uses."""
    return ChunkTiming(
        chunk_id=int(msg.chunk_id),
        num_steps=int(msg.num_steps),
        cameras=tuple(msg.camera_names),
        image_age_ms=tuple(msg.image_age_ms),
        transport_ms=tuple(msg.transport_ms),
        frames_received=tuple(msg.frames_received),
        frames_dropped=tuple(msg.frames_dropped),
        frames_rejected=tuple(msg.frames_rejected),
        camera_skew_ms=msg.camera_skew_ms,
        state_age_ms=msg.state_age_ms,
        wait_ms=msg.wait_ms,
        stages=StageTimes(
            preprocess_ms=msg.preprocess_ms,
            vision_ms=msg.vision_ms,
            prefix_ms=msg.prefix_ms,
            denoise_ms=msg.denoise_ms,
        ),
        inference_ms=msg.inference_ms,
        deadline_ms=msg.deadline_ms,
    )
