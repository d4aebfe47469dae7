"""What the nano policy is and how it is trained: every number that a second run needs."""

from __future__ import annotations

from dataclasses import dataclass

from vla_trt_ros.policies.pi05.spec import NANO

NETWORK = NANO

ROBOT = 'metaworld'
CAMERA_SIZE = 224
"""Pixels, as the simulator node shows them; the policy's preprocessing makes them smaller."""


@dataclass(frozen=True)
class Recipe:
    """The optimiser's settings. Times are fractions of the whole run."""

    batch: int = 512
    """Observations in an update."""
    noises: int = 4
    """Pairs of noise and time for each observation: the prefix is computed once for all."""
    peak_rate: float = 8e-4
    warmup: float = 0.02
    decay_from: float = 0.5
    """The rate is constant until here, then falls along a cosine to `last_rate`."""
    last_rate: float = 5e-6
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.9995
    shift: int = 6
    """Pixels that a view is moved by at most, each on its own."""
    brightness: float = 0.15
    contrast: float = 0.15
    colour: float = 0.05
    state_noise: float = 0.006
    """Deviation added to the normalised state, a bit less than one of the prompt's 256 steps."""
    start_frames: int = 20_000
    """Frames that must be there before the first update: statistics come from these."""
    capacity: int = 700_000
    """Frames kept, the newest: 118 kB of GPU memory each."""


@dataclass(frozen=True, slots=True)
class Collection:
    """How episodes are made while the network learns."""

    teacher_noise: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Levels of disturbance where the teacher has the arm, one an episode."""
    teacher_share: float = 0.15
    """Of all episodes, once there is a policy that can have the arm."""
    policy_noise: tuple[float, ...] = (0.0, 0.0, 0.3)
    execute: tuple[int, int] = (3, 8)
    """Rows of a chunk that are executed, drawn per episode."""
    late: int = 2
    """Rows at most that a chunk is late, drawn per episode: on a robot it always is."""
    num_steps: tuple[int, ...] = (1, 3, 3, 10)
    """Denoise steps, drawn per episode."""
    teacher_steps: int = 250
    policy_steps: int = 200
    """Control steps after which an episode is given up."""
