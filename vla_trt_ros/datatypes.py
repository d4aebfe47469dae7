"""What the rooms hand to each other: plain data, NumPy arrays and integers, no ROS, no GPU.

Times are integer nanoseconds of the ROS clock (``*_ns``) unless a name says otherwise; lengths are
metres, angles radians, durations seconds.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.gpu_frame import GpuFrame

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Uint8Array = NDArray[np.uint8]

NS = 1_000_000_000
"""Nanoseconds in a second."""


class State(enum.IntEnum):
    """State of the policy or command node; the numbers are PolicyStatus.msg's."""

    UNKNOWN = 0
    INACTIVE = 1
    WAITING = 2
    RUNNING = 3
    HOLDING = 4
    STOPPED = 5
    ESTOPPED = 6


class Reason(enum.IntEnum):
    """Why a node does not run, or runs slowly; the numbers are PolicyStatus.msg's."""

    NONE = 0
    NO_IMAGE = 1
    STALE_IMAGE = 2
    CAMERA_SKEW = 3
    BAD_IMAGE = 4
    NO_STATE = 5
    STALE_STATE = 6
    BAD_STATE = 7
    NO_PROMPT = 8
    BAD_PROMPT = 9
    POLICY_ERROR = 10
    BAD_ACTION = 11
    NO_CHUNK = 12
    STALE_CHUNK = 13
    TRACKING_ERROR = 14
    ESTOP = 15
    DISABLED = 16
    CLOCK = 17
    PERCEPTION_HOLD = 18
    PERCEPTION_SLOW = 19
    STALE_DETECTIONS = 20


class ChunkFlag(enum.IntFlag):
    """ActionChunk.msg flags."""

    NONE = 0
    FIRST = 1
    LATE = 2
    CLAMPED = 4
    STALE_INPUT = 8
    RTC_PREFIX = 16
    DRY_RUN = 32


class ActionSpace(enum.IntEnum):
    """ActionChunk.msg action_space."""

    JOINT_POSITION = 1
    JOINT_DELTA = 2
    JOINT_VELOCITY = 3
    EE_ABSOLUTE = 4
    EE_DELTA = 5
    RAW = 6


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor at a stage boundary: its name, shape and dtype.

    ``shape`` holds positive integers; a bundle with prompt buckets lists one spec per bucket.
    ``dtype`` is a NumPy name ('float32', 'int64', 'bool') or 'bfloat16'.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class CameraFrame:
    """One camera image as it arrived, before any conversion.

    ``data`` is a uint8 view of the message's bytes (rows of ``step`` bytes for raw encodings, the
    whole file for compressed ones): valid as long as this object lives, never written to.
    """

    stamp_ns: int
    """Exposure time, from the message header."""
    receive_ns: int
    """When it reached us, same clock."""
    frame_id: str
    encoding: str
    """A row of camera/encodings.py: 'rgb8', 'bgr8', ..., or 'jpeg'/'png' for compressed images."""
    height: int
    width: int
    step: int
    """Bytes per row; 0 for compressed images."""
    data: Uint8Array
    big_endian: bool = False
    gpu: GpuFrame | None = None
    """The same pixels where a GPU reads them, once camera/upload.py has put them there."""


@dataclass(frozen=True, slots=True)
class JointSample:
    """Joint states as they arrived: any number of joints in any order; rad or m, rad/s or m/s."""

    stamp_ns: int
    receive_ns: int
    names: tuple[str, ...]
    positions: Float64Array
    velocities: Float64Array | None = None


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A label that a detector or classifier gives to a part of a picture; edges in its pixels."""

    label: str
    score: float
    left: float
    upper: float
    right: float
    lower: float


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything one inference sees.

    ``frames`` maps a camera name to its newest frame; a camera of the bundle that is absent is a
    masked view. ``state`` is float32 [state_dim] in the robot's units and the model's order.
    """

    frames: Mapping[str, CameraFrame]
    state: Float32Array
    prompt: str

    @property
    def stamp_ns(self) -> int:
        """Oldest exposure used: the time this observation speaks of."""
        return min(f.stamp_ns for f in self.frames.values())


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds of one inference, a field per stage (PolicyTiming.msg has the meanings)."""

    preprocess_ms: float = 0.0
    upload_ms: float = 0.0
    vision_ms: float = 0.0
    prefix_ms: float = 0.0
    denoise_ms: float = 0.0
    download_ms: float = 0.0
    postprocess_ms: float = 0.0

    @property
    def engine_ms(self) -> float:
        """Time inside the engines."""
        return self.vision_ms + self.prefix_ms + self.denoise_ms


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """What a policy returns: actions float32 [horizon, action_dim], un-normalised, in the model's
    order and kind (absolute or delta per column, see the bundle's layout), and where time went.
    """

    actions: Float32Array
    times: StageTimes
    prompt_tokens: int = 0
    uploads: int = 0
    """Host-to-device copies of this inference, those of its frames among them, and their bytes."""
    upload_bytes: int = 0
    device_memory_mib: float = 0.0
    """GPU memory in use; 0 without a GPU."""


@dataclass(frozen=True, slots=True)
class ChunkTiming:
    """Where the time of one chunk went, and how old its inputs were; the twin of PolicyTiming.msg.

    Per-camera tuples are in the order of ``cameras``. All times in milliseconds.
    """

    chunk_id: int
    num_steps: int
    cameras: tuple[str, ...]
    image_age_ms: tuple[float, ...]
    transport_ms: tuple[float, ...]
    frames_received: tuple[int, ...]
    frames_dropped: tuple[int, ...]
    frames_rejected: tuple[int, ...]
    camera_skew_ms: float
    state_age_ms: float
    wait_ms: float
    stages: StageTimes
    inference_ms: float
    deadline_ms: float
    consumed_steps: int = 0
    uploads: int = 0
    upload_bytes: int = 0
    device_memory_mib: float = 0.0


@dataclass(frozen=True, slots=True)
class ActionChunk:
    """H rows of D joint targets in the robot's units; the twin of ActionChunk.msg.

    ``actions`` float32 [H, D]: absolute positions, rad or m, columns in the order of ``names``.
    Row k is executed over [start_ns + k * step_ns, start_ns + (k + 1) * step_ns).
    """

    start_ns: int
    observation_ns: int
    step_ns: int
    names: tuple[str, ...]
    actions: Float32Array
    chunk_id: int = 0
    step_index0: int = 0
    velocities: Float32Array | None = None
    action_space: ActionSpace = ActionSpace.JOINT_POSITION
    valid_from: int = 0
    execute_count: int = 0
    num_steps: int = 0
    prompt_hash: int = 0
    policy_hash: str = ''
    run_id: bytes = bytes(16)
    flags: ChunkFlag = ChunkFlag.NONE
    clamped: int = 0

    @property
    def horizon(self) -> int:
        """Number of rows."""
        return int(self.actions.shape[0])

    @property
    def end_ns(self) -> int:
        """When the last row is over."""
        return self.start_ns + self.horizon * self.step_ns


class CommandKind(enum.Enum):
    """What the controller is sent."""

    TRAJECTORY = 'trajectory'
    """All points of ``Command``: trajectory_msgs/JointTrajectory."""
    POSITION = 'position'
    """The first row alone: std_msgs/Float64MultiArray for forward_command_controller."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command to a controller, already limited.

    ``positions`` float64 [N, D] and ``velocities`` float64 [N, D], columns in the order of
    ``names``; ``times`` float64 [N], seconds after ``stamp_ns``, strictly increasing.
    """

    kind: CommandKind
    stamp_ns: int
    names: tuple[str, ...]
    positions: Float64Array
    velocities: Float64Array
    times: Float64Array


@dataclass(slots=True)
class Counters:
    """Named event counts ('frame_repeated', 'bad_image', ...). Nothing is dropped uncounted."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, n: int = 1) -> None:
        """Count ``n`` more of ``name``."""
        self.counts[name] = self.counts.get(name, 0) + n

    def __getitem__(self, name: str) -> int:
        return self.counts.get(name, 0)


def prompt_hash(prompt: str) -> int:
    """CRC-32 of the UTF-8 prompt: ties a chunk to the words that made it."""
    return zlib.crc32(prompt.encode('utf-8'))
