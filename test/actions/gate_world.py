"""A two-joint arm, a clock and a robot that follows: what the tests of this room share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla_trt_ros.actions.gate import CommandGate
from vla_trt_ros.config import CameraConfig, JointConfig, RobotConfig, SafetyConfig
from vla_trt_ros.datatypes import ActionChunk, Command, CommandKind, JointSample

MS = 1_000_000
STEP_NS = 50 * MS
T0 = 1_000 * 1_000 * MS  # not 0: a stamp of 0 means unstamped
NAMES = ('shoulder', 'elbow')

ROBOT = RobotConfig(
    name='arm',
    description='two joints',
    joints=(
        JointConfig('shoulder', 'rad', -1.0, 1.0, 2.0, 0.1, 0.2),
        JointConfig('elbow', 'rad', -2.0, 2.0, 1.0, 0.05, 0.2),
    ),
    cameras={'base': CameraConfig('base/image_raw')},
    control_rate=20.0,
    safety=SafetyConfig(
        max_state_age_ms=150.0,
        max_chunk_age_ms=600.0,
        blend_in=0.0,
        blend_time=0.0,
        brake_time=0.2,
        stop_after=2.0,
    ),
)


def robot(**safety: float) -> RobotConfig:
    return replace(ROBOT, safety=replace(ROBOT.safety, **safety))


def joints(now_ns: int, *positions: float, names: tuple[str, ...] = NAMES) -> JointSample:
    return JointSample(now_ns, now_ns, names, np.array(positions))


def chunk(start_ns: int, rows: object, **fields: object) -> ActionChunk:
    values = {'observation_ns': start_ns, 'step_ns': STEP_NS, 'names': NAMES, **fields}
    return ActionChunk(start_ns=start_ns, actions=np.array(rows, np.float32), **values)


class World:
    """Ticks a gate every 10 ms with a robot that goes where it is told, as a controller would.

    ``policy``: rows of the next chunk from (elapsed s at start), or None: no chunks.
    ``alive``: joint states come. ``blocked``: the robot stays where it is.
    """

    def __init__(self, config: RobotConfig, *, kind: str = 'trajectory', dry_run: bool = False):
        self.gate = CommandGate(config, kind=CommandKind(kind), dry_run=dry_run)
        self.now_ns = T0
        self.position = np.zeros(2)
        self.velocity = np.zeros(2)
        self.commands: list[Command] = []
        self.trace: list[np.ndarray] = []
        self.states: list[str] = []
        self.policy = None
        self.alive = True
        self.blocked = False
        self.next_id = 0
        self._curve: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def offer(self, rows: object, **fields: object):
        start = fields.pop('start_ns', self.now_ns)
        fields.setdefault('chunk_id', self.next_id)
        self.next_id += 1
        return self.gate.offer_chunk(chunk(start, rows, **fields), self.now_ns)

    def tick(self):
        command, status = self.gate.tick(self.now_ns)
        if command is not None:
            self.commands.append(command)
            times = np.append(0.0, command.times) + (command.stamp_ns - T0) / 1e9
            positions = np.vstack([self.position, command.positions])
            velocities = np.vstack([self.velocity, command.velocities])
            if command.kind is CommandKind.POSITION:
                # A forward controller knows no velocity; the drive goes there in one period.
                velocities[:] = (command.positions[0] - self.position) / command.times[0]
            self._curve = (times, positions, velocities)
        return status

    def run(self, seconds: float, *, chunk_every: float = 0.1):
        status = self.gate.status()
        for _ in range(round(seconds * 100)):
            elapsed = (self.now_ns - T0) // MS
            if self.policy is not None and elapsed % round(chunk_every * 1000) == 0:
                rows = self.policy((self.now_ns - T0) / 1e9)
                if rows is not None:
                    self.offer(rows)
            if self.alive and elapsed % 20 == 0:
                self.gate.offer_joints(joints(self.now_ns, *self.position), self.now_ns)
            status = self.tick()
            self.states.append(status.state.name)
            self.now_ns += 10 * MS
            self._follow()
        return status

    def _follow(self):
        if self._curve is not None and not self.blocked:
            t = (self.now_ns - T0) / 1e9
            self.position, self.velocity = hermite(*self._curve, t)
        self.trace.append(self.position.copy())


def hermite(times, positions, velocities, t):
    """The textbook cubic through two knots, written apart from the code under test."""
    if t >= times[-1]:
        return positions[-1].copy(), np.zeros_like(positions[-1])
    k = max(int(np.searchsorted(times, t, side='right')) - 1, 0)
    h = times[k + 1] - times[k]
    basis = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [-3, -2, 3, -1], [2, 1, -2, 1]], float)
    knots = np.array([positions[k], h * velocities[k], positions[k + 1], h * velocities[k + 1]])
    a = basis @ knots
    s = max(t - times[k], 0.0) / h
    return a[0] + s * (a[1] + s * (a[2] + s * a[3])), (a[1] + s * (2 * a[2] + 3 * s * a[3])) / h
