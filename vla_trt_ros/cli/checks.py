"""The checks of ``vla-trt doctor`` on the machine itself, each a generator of findings."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from vla_trt_ros.bringup import transport_environment
from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.camera.encodings import ENCODINGS
from vla_trt_ros.config import STAGES, PlatformConfig, RobotConfig, find_file, share_dir
from vla_trt_ros.errors import VlaError
from vla_trt_ros.hardware import cpu_name

_SHM_NEEDED_MIB = 256


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``remedy`` is a line to type or to do, empty where all is well."""

    name: str
    status: Literal['ok', 'warn', 'fail', 'skip']
    text: str
    remedy: str = ''


def machine() -> Iterator[Finding]:
    """Processor, Python, our own installation."""
    yield Finding('machine', 'ok', f'{cpu_name()}, Python {sys.version.split()[0]}')
    try:
        yield Finding('package', 'ok', f'vla_trt_ros {version("vla_trt_ros")} in {share_dir()}')
    except PackageNotFoundError:
        yield Finding('package', 'ok', f'from {share_dir()}, not installed by pip')
    gpu = nvidia_smi()
    yield Finding('GPU', 'ok', gpu) if gpu else Finding('GPU', 'skip', 'no NVIDIA GPU')


def ros() -> Iterator[Finding]:
    """The client library, our messages, and launch."""
    if importlib.util.find_spec('rclpy') is None:
        remedy = "source /opt/ros/<distro>/setup.bash, or pip install 'vla_trt_ros[ros]'"
        yield Finding('rclpy', 'fail', 'not importable', remedy)
        return
    rmw = os.environ.get('RMW_IMPLEMENTATION', 'default')
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    yield Finding('rclpy', 'ok', f'RMW {rmw}, domain {domain}')
    if importlib.util.find_spec('vla_trt_ros.msg') is None:
        remedy = 'colcon build --packages-select vla_trt_ros, or pip install .'
        yield Finding('messages', 'fail', 'vla_trt_ros.msg is not built', remedy)
    else:
        yield Finding('messages', 'ok', 'vla_trt_ros.msg is built')
    if importlib.util.find_spec('launch_ros') is None:
        text = 'launch_ros is missing: vla-trt up does the same'
        yield Finding('ros2 launch', 'skip', text)
    else:
        yield Finding('ros2 launch', 'ok', 'launch_ros is there')
    if importlib.util.find_spec('cv_bridge') is None:
        yield Finding('cv_bridge', 'skip', f'missing: encodings are {", ".join(ENCODINGS)}')
    else:
        yield Finding('cv_bridge', 'ok', 'converts encodings that have no row of their own')


def transport() -> Iterator[Finding]:
    """Whether a whole image fits the shared memory of Fast DDS."""
    missing = transport_environment(os.environ)
    if missing:
        name, value = next(iter(missing.items()))
        yield Finding(
            'image transport',
            'warn',
            'Fast DDS at its defaults loses over half of best-effort images; vla-trt up and '
            'pi05.launch.py set a profile, a camera driver started apart needs it too',
            f'export {name}={value}',
        )
    else:
        yield Finding('image transport', 'ok', 'a profile, a transport or another RMW is chosen')
    free = shutil.disk_usage('/dev/shm').free >> 20 if Path('/dev/shm').is_dir() else 0
    if free < _SHM_NEEDED_MIB:
        yield Finding(
            'shared memory',
            'fail',
            f'{free} MiB free in /dev/shm, {_SHM_NEEDED_MIB} wanted',
            'in a container: docker run --shm-size=1g, or --ipc=host',
        )
    else:
        yield Finding('shared memory', 'ok', f'{free} MiB free in /dev/shm')


def backends(platform: PlatformConfig) -> Iterator[Finding]:
    """What runs the stages that ``platform`` names."""
    modules = {
        'onnxruntime': ('onnxruntime', 'pip install onnxruntime'),
        'tensorrt': ('tensorrt', 'pip install tensorrt, or JetPack 7'),
        'cuda_graph': ('torch', 'pip install torch with CUDA'),
    }
    for backend in dict.fromkeys(platform.stage(s).backend for s in STAGES):
        if backend not in modules:
            continue
        module, remedy = modules[backend]
        if importlib.util.find_spec(module) is None:
            yield Finding(f'backend {backend}', 'fail', f'{module} is not importable', remedy)
        else:
            yield Finding(f'backend {backend}', 'ok', f'{module} {version(module)}')
    if platform.target == 'cpu':
        return
    capability = compute_capability()
    if not capability:
        text = f'platform {platform.name} needs a GPU of {platform.target}, none is found'
        yield Finding('platform', 'fail', text, 'use platform cpu on this machine')
    elif capability != platform.target:
        text = f'platform {platform.name} is for {platform.target}, this GPU is {capability}'
        yield Finding('platform', 'fail', text, 'choose the platform file of this GPU')
    else:
        yield Finding('platform', 'ok', f'{platform.name} fits this GPU ({capability})')


def bundle(name: str, platform: PlatformConfig, robot: RobotConfig) -> Iterator[Finding]:
    """Hashes, robot, and an engine for each stage of the platform."""
    try:
        found = open_bundle(find_file('bundles', name, ''))
    except VlaError as error:
        yield Finding('bundle', 'fail', str(error), 'export it again, or name another bundle')
        return
    yield Finding('bundle', 'ok', f'{found.name}: every hash agrees')
    try:
        found.check_robot(robot)
    except VlaError as error:
        yield Finding('robot', 'fail', str(error), 'name the bundle of this robot by --bundle')
    else:
        yield Finding('robot', 'ok', f'bundle and robot file {robot.name} agree')
    for stage in STAGES:
        choice = platform.stage(stage)
        label = f'{stage} on {choice.backend} {choice.precision}'
        try:
            count = len(found.engines(stage, choice.backend, choice.precision))
        except VlaError as error:
            remedy = f'vla-trt build --bundle {name} --platform {platform.name}'
            yield Finding(label, 'fail', str(error), remedy)
        else:
            yield Finding(label, 'ok', f'{count} engine{"s" * (count != 1)}')


def simulator() -> Iterator[Finding]:
    """Meta-World and a way to render without a screen."""
    if importlib.util.find_spec('metaworld') is None:
        remedy = "pip install 'vla_trt_ros[sim]'"
        yield Finding('simulator', 'skip', 'metaworld is not installed', remedy)
        return
    yield Finding('simulator', 'ok', f'metaworld {version("metaworld")}')
    from ctypes.util import find_library

    if os.environ.get('MUJOCO_GL', 'osmesa') == 'osmesa' and not find_library('OSMesa'):
        yield Finding('rendering', 'fail', 'OSMesa is missing', 'apt-get install libosmesa6')
    else:
        yield Finding('rendering', 'ok', f'MUJOCO_GL {os.environ.get("MUJOCO_GL", "osmesa")}')


def nvidia_smi(query: str = 'name,memory.total,driver_version') -> str:
    """What nvidia-smi says of the first GPU, comma separated; '' where there is none."""
    if shutil.which('nvidia-smi') is None:
        return ''
    command = ['nvidia-smi', f'--query-gpu={query}', '--format=csv,noheader']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ''
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ''


def compute_capability() -> str:
    """Of the first GPU, as 'sm_90'; '' where there is none."""
    found = nvidia_smi('compute_cap')
    return f'sm_{found.replace(".", "")}' if found else ''
