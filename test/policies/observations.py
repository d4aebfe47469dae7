"""Observations that no image file is needed for."""

import numpy as np

from vla_trt_ros.datatypes import CameraFrame, Observation

STATE = np.array([0.05, 0.6, 0.2, 1.0], np.float32)


def frame(size=112, shift=0, encoding='rgb8'):
    """A ramp along each axis, a diagonal one moved by ``shift``, and one bright corner."""
    y, x = np.mgrid[:size, :size]
    image = np.stack([x * 255 // size, y * 255 // size, (x + y + shift) % 256], axis=-1)
    image[: size // 8, : size // 8] = 255
    return CameraFrame(1, 1, '', encoding, size, size, size * 3, image.astype(np.uint8).ravel())


def observe(prompt='reach the goal', state=STATE, **frames):
    frames = frames or {'base': frame(), 'wrist': frame(shift=40)}
    return Observation(frames, np.asarray(state, np.float32), prompt)


def noise(seed=0):
    return np.random.default_rng(seed).standard_normal((10, 32), dtype=np.float32)
