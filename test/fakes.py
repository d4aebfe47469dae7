"""Messages without ROS: objects with the fields of sensor_msgs, as a bag reader gives them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from vla_trt_ros.datatypes import NS, CameraFrame, JointSample


def header(stamp_ns: int, frame_id: str = 'camera') -> SimpleNamespace:
    stamp = SimpleNamespace(sec=stamp_ns // NS, nanosec=stamp_ns % NS)
    return SimpleNamespace(stamp=stamp, frame_id=frame_id)


def image_msg(pixels: np.ndarray, encoding: str, *, stamp_ns: int = NS, pad: int = 0):
    """sensor_msgs/Image of ``pixels`` [H, W] or [H, W, C] uint8, rows padded by ``pad`` bytes."""
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, pad)), constant_values=199)
    return SimpleNamespace(
        header=header(stamp_ns),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=padded.shape[1],
        data=padded.reshape(-1),
    )


def rgb_frame(stamp_ns: int, pixels: np.ndarray | None = None) -> CameraFrame:
    """A small rgb8 frame; a ramp with one bright corner unless ``pixels`` are given."""
    if pixels is None:
        pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
        pixels[0, 0] = 255
    h, w, _ = pixels.shape
    return CameraFrame(stamp_ns, stamp_ns, 'camera', 'rgb8', h, w, 3 * w, pixels.reshape(-1))


def joints(stamp_ns: int, **positions: float) -> JointSample:
    return JointSample(
        stamp_ns, stamp_ns, tuple(positions), np.array(list(positions.values()), np.float64)
    )
