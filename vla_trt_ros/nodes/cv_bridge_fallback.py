"""Encodings without a row in camera/encodings.py: cv_bridge converts them where it is installed.

Off the hot path: a known encoding never comes here.
"""

from __future__ import annotations

import numpy as np

from vla_trt_ros.datatypes import CameraFrame
from vla_trt_ros.messages import stamp_ns

try:
    from cv_bridge import CvBridge, CvBridgeError
except ImportError:  # no ROS distribution, or one without it
    CvBridge = None


def frame(msg, receive_ns: int) -> CameraFrame | None:
    """``msg`` (sensor_msgs/Image) as an rgb8 frame; None where cv_bridge is missing or fails."""
    if CvBridge is None:
        return None
    try:
        pixels = np.ascontiguousarray(CvBridge().imgmsg_to_cv2(msg, 'rgb8'), np.uint8)
    except (CvBridgeError, RuntimeError, ValueError):
        return None
    height, width, _ = pixels.shape
    return CameraFrame(
        stamp_ns=stamp_ns(msg.header.stamp),
        receive_ns=receive_ns,
        frame_id=msg.header.frame_id,
        encoding='rgb8',
        height=height,
        width=width,
        step=3 * width,
        data=pixels.reshape(-1),
    )
