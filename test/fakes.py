"""Messages without ROS: objects with the fields of sensor_msgs, as a bag reader gives them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from vla_trt_ros.datatypes import (
    NS,
    CameraFrame,
    JointSample,
    Observation,
    PolicyResult,
    StageTimes,
)
from vla_trt_ros.errors import BadPrompt
from vla_trt_ros.policies.base import Made


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


class FakePolicy:
    """A policy whose chunk a reader can work out: row k moves hand_x by 0.01 (k + 1) m from where
    it was and holds the other joints; it keeps what it was asked.
    """

    def __init__(self, robot: str = 'metaworld') -> None:
        names = ('hand_x', 'hand_y', 'hand_z', 'gripper')
        kinds = ('delta', 'delta', 'delta', 'absolute')
        columns = tuple(
            SimpleNamespace(joint=n, kind=k) for n, k in zip(names, kinds, strict=True)
        )
        layout = SimpleNamespace(robot=robot, step_dt=0.05, state=names, actions=columns)
        self.bundle = SimpleNamespace(
            name='fake', sha256='f' * 64, layout=layout, check_robot=lambda robot: None
        )
        self.views = ('base', 'wrist')
        self.horizon = 10
        self.transport = 'host'
        self.places = 1
        self.num_steps_available = (1, 3, 10)
        self.asked: list[tuple[Observation, int]] = []
        self.fault: Exception | None = None
        self.upload_fault: Exception | None = None
        self.fill = 0.0
        self.seeds: list[int] = []

    def prepare_frame(self, view: str, frame: CameraFrame) -> CameraFrame:
        if self.upload_fault is not None:
            raise self.upload_fault
        return frame

    def infer(self, observation: Observation, *, num_steps: int, noise=None) -> PolicyResult:
        self.asked.append((observation, num_steps))
        if self.fault is not None:
            raise self.fault
        actions = np.full((self.horizon, 4), self.fill, np.float32)
        actions[:, 0] += 0.01 * np.arange(1, self.horizon + 1, dtype=np.float32)
        return PolicyResult(actions, StageTimes(vision_ms=1.0, prefix_ms=2.0, denoise_ms=3.0), 9)

    def submit(self, observation: Observation, *, num_steps: int, noise=None) -> Made:
        return Made(self.infer(observation, num_steps=num_steps, noise=noise))

    def wait_turn(self) -> None:
        pass

    def check_prompt(self, prompt: str) -> int:
        if not prompt.strip():
            raise BadPrompt('the prompt is empty.')
        return len(prompt.split())

    def reseed(self, seed: int) -> None:
        self.seeds.append(seed)

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass
