"""What cameras and arms publish, made of datatypes: the simulator's, and a recording's again."""

from __future__ import annotations

import array

from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_trt_ros.camera.encodings import COMPRESSED
from vla_trt_ros.datatypes import CameraFrame, JointSample
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
    # An array.array is taken as it is; bytes would be checked element by element.
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
