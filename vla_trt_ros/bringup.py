"""What a running system consists of, in plain data: one description for ``ros2 launch`` and for
``vla-trt up``. No ROS import: launch/pi05.launch.py turns it into launch actions, cli/up.py into
child processes.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from vla_trt_ros.config import (
    NUM_STEPS,
    available,
    find_file,
    load_platform,
    load_robot,
    share_dir,
)
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.perception.choice import bundles_of, turns_of

TRUE_FALSE = ('true', 'false')


@dataclass(frozen=True, slots=True)
class Argument:
    """One launch argument; ``choices`` empty: any text."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


ARGUMENTS = (
    Argument(
        'num_steps',
        '10',
        'denoise steps per chunk: fewer is faster; can be changed while running',
        tuple(str(n) for n in NUM_STEPS),
    ),
    Argument('platform', 'cpu', 'machine: a file of config/platforms, or a path'),
    Argument('bundle', '', 'engine bundle: a name or a path; empty: as the policy file says'),
    Argument('prompt', '', "the task in words; empty: the policy file's, or the simulated task's"),
    Argument('robot', 'metaworld', 'robot: a file of config/robots, or a path'),
    Argument('policy', 'pi05', 'policy: a file of config/policies, or a path'),
    Argument(
        'cameras', '', "image topics in place of the robot file's: base=/a/image,wrist=/b/image"
    ),
    Argument(
        'controller',
        'robot',
        'how commands are sent: trajectory = JointTrajectory, position = Float64MultiArray, '
        'robot = as the robot file says',
        ('robot', 'trajectory', 'position'),
    ),
    Argument(
        'dry_run',
        'auto',
        'true: compute everything and move nothing; auto: true unless sim:=true',
        ('auto', *TRUE_FALSE),
    ),
    Argument(
        'overlap',
        'false',
        'begin a chunk while the steps of the one before run: more chunks, each takes longer; '
        'platforms with every stage on cuda_graph',
        TRUE_FALSE,
    ),
    Argument('sim', 'false', 'start the Meta-World simulator as the robot', TRUE_FALSE),
    Argument('task', 'reach', 'Meta-World task of the simulator, such as reach or drawer-open'),
    Argument(
        'detectors',
        '',
        "detectors on the policy's frames: files of config/detectors, bundles or paths, "
        'comma-separated; empty: none',
    ),
    Argument(
        'classifiers', '', 'classifiers of what they find: bundles or paths, comma-separated'
    ),
    Argument(
        'detector_rates',
        'all=5',
        'looks per second of each camera: all=5, or base=5,wrist=/3 for each third frame',
    ),
    Argument(
        'detectors_after_chunk',
        'false',
        "true: look between two of the policy's ticks, not beside one",
        TRUE_FALSE,
    ),
    Argument('hold_on_labels', '', 'labels of detections at which the arm holds, such as person'),
    Argument('slow_on_labels', '', 'labels of detections at which the arm is slow'),
    Argument(
        'rviz', 'false', "open rviz2: cameras, detections, the chunk's path, status", TRUE_FALSE
    ),
    Argument('namespace', '', 'ROS namespace of all nodes and topics'),
    Argument('params_file', '', 'ROS parameter YAML, read before these arguments'),
    Argument('log_level', 'info', 'lowest level to log', ('debug', 'info', 'warn', 'error')),
)


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the system: executable of this package, node name and parameters."""

    executable: str
    """Under lib/vla_trt_ros; ``module`` is the same for those who start Python themselves."""
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    package: str = 'vla_trt_ros'
    arguments: tuple[str, ...] = ()
    essential: bool = True
    """False: the others go on when it ends, as they do when a person closes a window."""
    composed: bool = False
    """True: several nodes, which keep their own names; all get the same parameters."""

    @property
    def module(self) -> str:
        """What runs it, in vla_trt_ros.nodes."""
        return 'compose' if self.executable == 'vla_node' else self.executable


@dataclass(frozen=True, slots=True)
class Bringup:
    """Everything to start, in the order to start it, and what all of it shares."""

    processes: tuple[Process, ...]
    namespace: str
    params_file: str
    log_level: str
    environment: Mapping[str, str]
    """Set where the user has not set the variable."""
    notes: tuple[str, ...]
    """What the user should know, a line each."""


def parse(words: list[str]) -> dict[str, str]:
    """``['num_steps:=3', ...]`` to a mapping; ConfigError for anything else."""
    values: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition(':=')
        if not separator:
            raise ConfigError(f'{word!r}: write arguments as name:=value.')
        values[name] = value
    return values


def describe(given: Mapping[str, str]) -> Bringup:
    """The system for ``given`` arguments (the others at their defaults).

    Raises ConfigError for an unknown argument, a value that is none of the choices, and files that
    do not exist or do not load: everything that can be known before a process starts.
    """
    value = _checked(given)
    platform, robot = load_platform(value['platform']), load_robot(value['robot'])
    sim = value['sim'] == 'true'
    dry_run = not sim if value['dry_run'] == 'auto' else value['dry_run'] == 'true'
    if sim and robot.name != 'metaworld':
        raise ConfigError(f"sim:=true plays robot 'metaworld', not {robot.name!r}.")
    if value['params_file'] and not Path(value['params_file']).is_file():
        raise ConfigError(f'params_file {value["params_file"]} does not exist.')
    robot.with_camera_topics(value['cameras'])
    prompt = value['prompt']
    if sim and not prompt:
        from vla_trt_ros.sim.prompts import prompt_for

        prompt = prompt_for(value['task'])
    controller = '' if value['controller'] == 'robot' else value['controller']
    common = {'robot': value['robot'], 'dry_run': dry_run}
    turns = turns_of(value['detector_rates'], robot.cameras)
    policy = Process(
        'policy_node',
        'policy',
        {
            **common,
            'platform': value['platform'],
            'policy': value['policy'],
            'bundle': value['bundle'],
            'prompt': prompt,
            'cameras': value['cameras'],
            'num_steps': int(value['num_steps']),
            'overlap': value['overlap'] == 'true',
        },
    )
    command = {
        **common,
        'controller': controller,
        'hold_on_labels': value['hold_on_labels'],
        'slow_on_labels': value['slow_on_labels'],
        'watch_cameras': ','.join(turns),
    }
    processes = [
        Process('command_node', 'command', command),
        _with_perception(policy, value) if value['detectors'] else policy,
    ]
    if sim:
        processes.insert(
            0,
            Process(
                'sim_node',
                'sim',
                {'robot': value['robot'], 'task': value['task'], 'controller': controller},
            ),
        )
    if value['rviz'] == 'true':
        config = share_dir() / 'config' / 'rviz' / 'pi05.rviz'
        viewer = Process('rviz2', 'rviz', {}, 'rviz2', ('-d', str(config)), essential=False)
        markers = Process('marker_node', 'markers', {'robot': value['robot']}, essential=False)
        processes += [markers, viewer]
    notes = [f'platform {platform.name}: {platform.description}']
    if dry_run:
        notes.append('dry_run: nothing is sent to a controller; dry_run:=false moves the arm')
    if (value['hold_on_labels'] or value['slow_on_labels']) and not value['detectors']:
        notes.append('the arm holds until a perception node of your own publishes detections')
    return Bringup(
        processes=tuple(processes),
        namespace=value['namespace'].strip('/'),
        params_file=value['params_file'],
        log_level=value['log_level'],
        environment=transport_environment(os.environ),
        notes=tuple(notes),
    )


def _with_perception(policy: Process, value: Mapping[str, str]) -> Process:
    """The policy node and detectors in one process, so that they share the frames."""
    for bundle in chain(*bundles_of(value['detectors'], value['classifiers'])):
        find_file('bundles', bundle, '')
    parameters = {
        **policy.parameters,
        'detectors': value['detectors'],
        'classifiers': value['classifiers'],
        'rates': value['detector_rates'],
        'after_chunk': value['detectors_after_chunk'] == 'true',
    }
    nodes = ('policy', 'perception')
    return Process('vla_node', policy.name, parameters, arguments=nodes, composed=True)


def transport_environment(current: Mapping[str, str]) -> dict[str, str]:
    """Variables that let images through: Fast DDS's default shared memory holds half an image.

    A profile or transport that the user chose stays, and so does another RMW.
    """
    chosen = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTDDS_BUILTIN_TRANSPORTS')
    if any(current.get(name) for name in chosen):
        return {}
    if 'fastrtps' not in current.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp'):
        return {}
    profile = share_dir() / 'config' / 'dds' / 'fastdds_large_shm.xml'
    return {'FASTDDS_DEFAULT_PROFILES_FILE': str(profile)}


def _checked(given: Mapping[str, str]) -> dict[str, str]:
    known = {a.name: a for a in ARGUMENTS}
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean {close[0]}?' if close else f'known: {", ".join(known)}.'
            raise ConfigError(f'unknown argument {name!r}; {hint}')
    value = {a.name: given.get(a.name, a.default) for a in ARGUMENTS}
    for name, argument in known.items():
        if argument.choices and value[name] not in argument.choices:
            choices = ', '.join(argument.choices)
            raise ConfigError(f'{name}:={value[name]} is none of {choices}.')
    return value


def choices_of(argument: Argument) -> str:
    """What may be given, for help texts: the choices, or the installed files of that kind."""
    if argument.choices:
        return ' | '.join(argument.choices)
    kinds = {
        'platform': 'platforms',
        'robot': 'robots',
        'policy': 'policies',
        'detectors': 'detectors',
    }
    if argument.name in kinds:
        return ' | '.join((*available(kinds[argument.name]), 'PATH'))
    return 'TEXT'
