"""What a simulator looks like to the rest: a robot with joints, cameras and a task.

A simulator is one file that satisfies ``Environment``. Joint names, units and camera names are
those of the robot file.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from vla_trt_ros.datatypes import CameraFrame, Float64Array, JointSample, Uint8Array


@runtime_checkable
class Environment(Protocol):
    """One simulated robot on one task. Used from a single thread, the one that first renders."""

    @property
    def task(self) -> str:
        """The task's name, as in ``sim.prompts``."""
        ...

    @property
    def prompt(self) -> str:
        """What the policy is told, in words."""
        ...

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The joints that ``apply`` moves, in its order."""
        ...

    @property
    def success(self) -> bool:
        """True once the task was solved since the last reset."""
        ...

    @property
    def steps(self) -> int:
        """Calls of ``apply`` since the last reset."""
        ...

    def reset(self, seed: int) -> None:
        """Begin an episode. The same seed gives the same scene, state and pictures."""
        ...

    def observe(self, stamp_ns: int = 0) -> JointSample:
        """What the robot's own encoders read, and nothing about objects. ``joint_names`` come
        first, or the robot file's readings; further joints may follow for display. The stamps are
        ``stamp_ns``.
        """
        ...

    def render(self) -> dict[str, Uint8Array]:
        """Camera name -> uint8 [H, W, 3], RGB, upright. The arrays are the caller's to keep."""
        ...

    def apply(self, target: Float64Array) -> None:
        """Advance one control step toward joint targets, float64 [len(joint_names)], absolute, in
        the robot's units. Targets outside the limits are clipped; BadAction on NaN, Inf or a wrong
        length, and then nothing moves.
        """
        ...

    def hold_target(self) -> Float64Array:
        """The target, float64 [len(joint_names)], that keeps the robot as it now stands."""
        ...

    def close(self) -> None:
        """Free the simulation and the renderer. Call it once, last."""
        ...


def camera_frame(
    image: Uint8Array, stamp_ns: int, frame_id: str, encoding: str = 'rgb8'
) -> CameraFrame:
    """A rendered picture, uint8 [H, W, 3] RGB, as the frame that a camera driver would send.

    ``encoding`` is 'rgb8' or 'bgr8'; the channels are put in its order.
    """
    pixels = image if encoding == 'rgb8' else image[..., ::-1]
    height, width, channels = image.shape
    return CameraFrame(
        stamp_ns=stamp_ns,
        receive_ns=stamp_ns,
        frame_id=frame_id,
        encoding=encoding,
        height=height,
        width=width,
        step=width * channels,
        data=pixels.reshape(-1),
    )
