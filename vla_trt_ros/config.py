"""Platform, robot and policy files as frozen dataclasses; every cross-check of one file is here.

Files are looked up by name in the installed share folder (``config/<kind>/<name>.yaml``) or given
as a path. A file that is wrong raises ConfigError before anything moves.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.strict_yaml import load_yaml

STAGES = ('vision', 'prefix', 'denoise')
"""Of a policy."""
PERCEPTION_STAGES = ('detect', 'classify')
"""Of a detector and of a classifier."""
NUM_STEPS = (1, 2, 3, 5, 10)
"""Step counts that a bundle may carry: those of the published Pi0.5 latency tables."""

Backend = Literal['onnxruntime', 'tensorrt', 'cuda_graph', 'onnx_graph', 'null']
GPU_BACKENDS = ('tensorrt', 'cuda_graph', 'onnx_graph')
_BACKENDS_OF_ONE = {'cuda_graph': 'a policy', 'onnx_graph': 'detectors and classifiers'}
"""Backends that do not run every stage, and whose stages they run."""
Precision = Literal['fp32', 'fp16', 'bf16', 'fp8', 'int8', 'int4', 'nvfp4']

# What a processor can compute; `vla-trt build` and the platform check read the same rows.
_GPU_PRECISIONS: dict[str, tuple[str, ...]] = {
    'cpu': ('fp32', 'int8'),
    'sm_87': ('fp32', 'fp16', 'bf16', 'int8', 'int4'),
    'sm_86': ('fp32', 'fp16', 'bf16', 'int8', 'int4'),
    'sm_89': ('fp32', 'fp16', 'bf16', 'int8', 'int4', 'fp8'),
    'sm_90': ('fp32', 'fp16', 'bf16', 'int8', 'int4', 'fp8'),
    'sm_110': ('fp32', 'fp16', 'bf16', 'int8', 'int4', 'fp8', 'nvfp4'),
    'sm_120': ('fp32', 'fp16', 'bf16', 'int8', 'int4', 'fp8', 'nvfp4'),
}


def targets() -> tuple[str, ...]:
    """Processors that a platform file may name."""
    return tuple(_GPU_PRECISIONS)


def precisions_of(target: str) -> tuple[str, ...]:
    """What ``target`` ('cpu', 'sm_87', ...) can compute; ConfigError for an unknown target."""
    if target not in _GPU_PRECISIONS:
        raise ConfigError(f'target {target!r} is none of {", ".join(_GPU_PRECISIONS)}.')
    return _GPU_PRECISIONS[target]


@dataclass(frozen=True, slots=True)
class StageChoice:
    """Which backend runs a stage, and at which precision."""

    backend: Backend
    precision: Precision


@dataclass(frozen=True, slots=True)
class PlatformConfig:
    """How the stages run on one kind of machine (config/platforms/)."""

    name: str
    description: str
    target: str
    """'cpu', or the GPU's compute capability as 'sm_87'."""
    vision: StageChoice
    prefix: StageChoice
    denoise: StageChoice
    perception: StageChoice = field(default_factory=lambda: StageChoice('onnxruntime', 'fp32'))
    """Detectors and classifiers."""
    threads: int = 0
    """Threads of a CPU engine; 0 = all cores but one, which the camera path needs."""

    def __post_init__(self) -> None:
        precisions_of(self.target)
        if self.threads < 0:
            raise ConfigError(f'threads {self.threads} is negative; use 0 for automatic.')
        for stage in (*STAGES, 'perception'):
            choice = self.stage(stage)
            if choice.precision not in _GPU_PRECISIONS[self.target]:
                able = ', '.join(_GPU_PRECISIONS[self.target])
                raise ConfigError(
                    f'{stage}: {choice.precision} does not run on {self.target}; choose of {able}.'
                )
            runs = _BACKENDS_OF_ONE.get(choice.backend, '')
            if runs and (runs == 'a policy') == (stage == 'perception'):
                raise ConfigError(
                    f'{stage}: backend {choice.backend} runs {runs} alone; choose another.'
                )
            if self.target == 'cpu' and choice.backend in GPU_BACKENDS:
                raise ConfigError(
                    f'{stage}: backend {choice.backend} needs a GPU: on cpu use onnxruntime.'
                )

    def stage(self, name: str) -> StageChoice:
        """The choice for stage 'vision', 'prefix' or 'denoise', or for 'detect' and 'classify',
        which are both ``perception``.
        """
        name = 'perception' if name in PERCEPTION_STAGES else name
        choice: StageChoice = getattr(self, name)
        return choice

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU runs any stage."""
        return any(self.stage(s).backend in GPU_BACKENDS for s in STAGES)

    @property
    def perception_on_gpu(self) -> bool:
        """Whether a GPU runs detectors and classifiers."""
        return self.perception.backend in GPU_BACKENDS

    @property
    def all_on_gpu(self) -> bool:
        """Whether stages follow each other on the GPU without the host between them."""
        return all(self.stage(s).backend in GPU_BACKENDS for s in STAGES)

    @property
    def engine_threads(self) -> int:
        """Threads that a CPU engine may use."""
        return self.threads or max(1, (os.cpu_count() or 2) - 1)


@dataclass(frozen=True, slots=True)
class JointConfig:
    """One joint and the limits that its commands keep. Limits are the gate's, not the maker's."""

    name: str
    unit: Literal['rad', 'm', 'ratio']
    """'ratio': a gripper, 0 closed to 1 open, or a controller's input, a share of its range."""
    lower: float
    upper: float
    max_velocity: float
    """Unit per second."""
    max_step: float
    """Largest change between two rows of a chunk, in the unit."""
    tracking_tolerance: float
    """Largest distance between where it was sent and where it is, before the arm holds."""

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ConfigError(f'lower {self.lower} is not below upper {self.upper}.')
        for name in ('max_velocity', 'max_step', 'tracking_tolerance'):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f'{name} {value} must be above 0.')


@dataclass(frozen=True, slots=True)
class ReadingConfig:
    """A number that joint states carry and no command sets, and the range it is expected in."""

    name: str
    unit: Literal['rad', 'm']
    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ConfigError(f'lower {self.lower} is not below upper {self.upper}.')


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """Where a view comes from, and how old it may be."""

    topic: str
    compressed: bool = False
    """True: sensor_msgs/CompressedImage on ``topic``."""
    max_age_ms: float = 200.0

    def __post_init__(self) -> None:
        if not self.topic:
            raise ConfigError('topic is empty; name the image topic.')
        if self.max_age_ms <= 0:
            raise ConfigError(f'max_age_ms {self.max_age_ms} must be above 0.')


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """The controller that commands go to."""

    kind: Literal['trajectory', 'position'] = 'trajectory'
    topic: str = 'joint_trajectory_controller/joint_trajectory'

    def of_kind(self, kind: str) -> ControllerConfig:
        """Itself, or where ``kind`` ('' keeps it) is another one, that kind on the topic
        that ros2_control gives it by default. ConfigError for an unknown kind.
        """
        if kind in ('', self.kind):
            return self
        if kind == 'trajectory':
            return ControllerConfig()
        if kind == 'position':
            return ControllerConfig('position', 'forward_position_controller/commands')
        raise ConfigError(f'controller {kind!r} is none of trajectory, position.')


@dataclass(frozen=True, slots=True)
class SafetyConfig:
    """Budgets of the command gate; seconds unless the name says otherwise."""

    max_state_age_ms: float = 150.0
    max_chunk_age_ms: float = 600.0
    """Since the oldest exposure the chunk was made from."""
    blend_in: float = 1.0
    """After a start or a hold, commands fade in from the measured position over this long."""
    blend_time: float = 0.1
    """A new chunk fades in over the running one for this long."""
    brake_time: float = 0.2
    """A hold slows to a stop over this long."""
    stop_after: float = 2.0
    """A hold that lasts this long becomes a stop, which needs ~/reset."""
    max_tracking_errors: int = 3
    """This many tracking errors within 10 s become a stop: something blocks the arm. 0: never."""

    def __post_init__(self) -> None:
        for name in ('max_state_age_ms', 'max_chunk_age_ms', 'brake_time', 'stop_after'):
            if getattr(self, name) <= 0:
                raise ConfigError(f'{name} {getattr(self, name)} must be above 0.')
        for name in ('blend_in', 'blend_time', 'max_tracking_errors'):
            if getattr(self, name) < 0:
                raise ConfigError(f'{name} {getattr(self, name)} is negative; 0 turns it off.')


@dataclass(frozen=True, slots=True)
class RobotConfig:
    """One robot: joints, cameras, controller and limits (config/robots/)."""

    name: str
    description: str
    joints: tuple[JointConfig, ...]
    cameras: dict[str, CameraConfig]
    """View name ('base', 'wrist', ...) to camera; a bundle names the views it wants."""
    control_rate: float
    """Rows of a chunk per second, Hz."""
    action_space: Literal['joint_position', 'raw'] = 'joint_position'
    """'raw': the joints are inputs of a controller, in its own units. Only a simulator takes them:
    the command gate refuses such chunks."""
    readings: tuple[ReadingConfig, ...] = ()
    """What the state of a policy is made of, in this order; empty: the joints."""
    tip: tuple[str, ...] = ()
    """Joints that are the x, y and z of the hand in ``frame``, where the robot has such: the path
    that rviz draws. Empty: none is drawn."""
    frame: str = 'base_link'
    """Coordinates of ``tip``."""
    joint_states_topic: str = 'joint_states'
    max_camera_skew_ms: float = 60.0
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)

    def __post_init__(self) -> None:
        if not self.joints:
            raise ConfigError('joints is empty; list every joint that is commanded.')
        names = [*self.joint_names, *(r.name for r in self.readings)]
        doubled = sorted({n for n in names if names.count(n) > 1})
        if doubled:
            raise ConfigError(f'joint {doubled[0]!r} is listed twice.')
        if self.action_space == 'raw' and not self.readings:
            raise ConfigError('raw inputs are never measured: list the readings of the state.')
        if self.tip and (len(self.tip) != 3 or not set(self.tip) <= set(self.joint_names)):
            raise ConfigError(
                f'tip {", ".join(self.tip)} must be three of the joints: those of x, y and z.'
            )
        if not self.cameras:
            raise ConfigError('cameras is empty; name at least one view.')
        if not 1.0 <= self.control_rate <= 1000.0:
            raise ConfigError(f'control_rate {self.control_rate} Hz is outside 1 to 1000.')
        if self.max_camera_skew_ms <= 0:
            raise ConfigError(f'max_camera_skew_ms {self.max_camera_skew_ms} must be above 0.')

    def with_camera_topics(self, text: str) -> RobotConfig:
        """A copy with other image topics, written 'base=/a/image,wrist=/b/image'; ConfigError
        names a view that it does not have.
        """
        cameras = dict(self.cameras)
        for part in filter(None, (p.strip() for p in text.split(','))):
            view, separator, topic = part.partition('=')
            if not separator or not topic:
                raise ConfigError(
                    f'cameras: {part!r} is not view=topic, such as base=/cam0/image_raw.'
                )
            if view not in cameras:
                raise ConfigError(
                    f'cameras: robot {self.name} has no view {view!r}; it has '
                    f'{", ".join(cameras)}.'
                )
            cameras[view] = replace(cameras[view], topic=topic)
        return replace(self, cameras=cameras)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names in the order of the file: the column order of chunks and commands."""
        return tuple(j.name for j in self.joints)

    @property
    def state_names(self) -> tuple[str, ...]:
        """What a policy's state may name: the readings, where there are any, else the joints."""
        return tuple(r.name for r in self.readings) or self.joint_names

    @property
    def step_ns(self) -> int:
        """Nanoseconds that one row is executed over."""
        return round(1e9 / self.control_rate)


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """How a policy family is run (config/policies/)."""

    family: str
    bundle: str
    """Bundle name in the share folder, or a path."""
    num_steps: int = 10
    prompt: str = ''
    max_rate: float = 30.0
    """Chunks per second at most, Hz."""
    deadline_ms: float = 100.0
    """From tick start to published chunk; a miss is counted, the chunk is sent all the same."""
    seed: int = 0
    """Of the flow-matching noise."""

    def __post_init__(self) -> None:
        if self.num_steps not in NUM_STEPS:
            raise ConfigError(f'num_steps {self.num_steps} is none of {NUM_STEPS}.')
        if self.max_rate <= 0 or self.deadline_ms <= 0:
            raise ConfigError('max_rate and deadline_ms must be above 0.')


C = TypeVar('C', PlatformConfig, RobotConfig, PolicyConfig)


def load_platform(name_or_path: str) -> PlatformConfig:
    """``config/platforms/<name>.yaml`` or a path."""
    return _load(PlatformConfig, 'platforms', name_or_path)


def load_robot(name_or_path: str) -> RobotConfig:
    """``config/robots/<name>.yaml`` or a path."""
    return _load(RobotConfig, 'robots', name_or_path)


def load_policy(name_or_path: str) -> PolicyConfig:
    """``config/policies/<name>.yaml`` or a path."""
    return _load(PolicyConfig, 'policies', name_or_path)


def _load(cls: type[C], kind: str, name_or_path: str) -> C:
    path = find_file(f'config/{kind}', name_or_path, '.yaml')
    config = load_yaml(cls, path)
    given: str = getattr(config, 'name', path.stem)
    if given != path.stem:
        raise ConfigError(f'{path}: name is {given!r}; a file and its name must agree.')
    return config


def available(kind: str) -> tuple[str, ...]:
    """Names of the files of 'platforms', 'robots' or 'policies' that are installed."""
    return tuple(sorted(p.stem for p in (share_dir() / 'config' / kind).glob('*.yaml')))


def find_file(folder: str, name_or_path: str, suffix: str) -> Path:
    """A path as given, or ``<share>/<folder>/<name><suffix>``; ConfigError lists what exists."""
    if os.sep in name_or_path or name_or_path.endswith(suffix or os.sep):
        path = Path(name_or_path).expanduser()
        if not path.exists():
            raise ConfigError(f'{path} does not exist.')
        return path
    base = share_dir() / folder
    path = base / f'{name_or_path}{suffix}'
    if not path.exists():
        known = sorted(p.name.removesuffix(suffix) for p in base.glob(f'*{suffix}'))
        raise ConfigError(
            f'{folder}/{name_or_path}{suffix} does not exist; '
            f'known: {", ".join(known) or "none"}, or give a path.'
        )
    return path


def share_dir() -> Path:
    """Where config/, launch/ and bundles/ are.

    The source tree of an editable install; else ``<prefix>/share/vla_trt_ros`` of the prefix that
    this file was installed under, by colcon or by pip.
    """
    here = Path(__file__).resolve()
    if (here.parents[1] / 'package.xml').is_file():
        return here.parents[1]
    # A colcon symlink install resolves to the source tree above; a plain one, and pip, end here.
    for prefix in here.parents:
        if (prefix / 'share' / 'vla_trt_ros' / 'config').is_dir():
            return prefix / 'share' / 'vla_trt_ros'
    raise ConfigError('the share folder of vla_trt_ros was not found: install the package again.')
