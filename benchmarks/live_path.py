"""What the way from chunk to arm costs: experts in lockstep against experts through the live path.

    python benchmarks/live_path.py [--episodes 20] [--json benchmarks/live-path.json]

The chunks are perfect: ten targets that the scripted expert would give, looked up in a copy of the
simulation. In lockstep each target is applied at once. Live, a chunk comes some time after its
pictures, as from a policy node, and goes through the command gate (fade-in, blending, limits) and
the trajectory controller to a simulator that steps on its own clock. All clocks are simulated, so
the result does not depend on the machine. Whatever is lost between the two is the path's doing.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_trt_ros.actions.gate import CommandGate
from vla_trt_ros.cli.progress import bar
from vla_trt_ros.config import RobotConfig, load_robot
from vla_trt_ros.datatypes import NS, ActionChunk, Command, Float32Array
from vla_trt_ros.sim.expert import Expert
from vla_trt_ros.sim.metaworld import MetaWorld
from vla_trt_ros.sim.prompts import BENCHMARK_TASKS
from vla_trt_ros.sim.robot import SimulatedRobot
from vla_trt_ros.sim.seeds import HELD_OUT_FROM
from vla_trt_ros.sim.trajectory_controller import Trajectory

HORIZON = 10
MAX_STEPS = 250
MS = 1_000_000
_HOP = MS  # from node to node
_REST = 15 * MS  # of the delay: transport and publishing, in which the policy already goes on


@dataclass(frozen=True)
class Way:
    """How the chunks come."""

    name: str
    delay_ms: int
    """From exposure to the command node."""
    blend_in: float | None = None
    """Seconds; None: as the robot file says."""
    noise: float = 0.0
    """Standard deviation of an error that all rows of a chunk share, m: a policy that wavers."""


WAYS = (
    Way('60 ms', 60),
    Way('120 ms', 120),
    Way('200 ms', 200),
    Way('60 ms, no fade-in', 60, blend_in=0.0),
    Way('60 ms, wavering by 1 cm', 60, noise=0.01),
)


def lockstep(env: MetaWorld, seed: int) -> int | None:
    """Control steps until the expert's success; None if it failed."""
    env.reset(seed)
    expert = Expert(env)
    while env.steps < MAX_STEPS and not env.success:
        env.apply(expert.target())
    return env.steps if env.success else None


def live(env: MetaWorld, seed: int, way: Way) -> int | None:
    """The same through gate and controller."""
    robot = _robot(way)
    rng = np.random.default_rng(seed)
    sim = SimulatedRobot(lambda task: env, env.task, seed=seed)
    gate = CommandGate(robot, dry_run=False)
    expert = Expert(env)
    order, ids = itertools.count(), itertools.count()
    events: list[tuple[int, int, str, Any]] = []
    free_ns = 0

    def at(when_ns: int, what: str, thing: Any = None) -> None:
        heapq.heappush(events, (when_ns, next(order), what, thing))

    at(NS, 'simulator')
    at(NS + 7 * MS, 'gate')
    while env.steps < MAX_STEPS and not env.success:
        now_ns, _, what, thing = heapq.heappop(events)
        if what == 'simulator':
            sim.step(now_ns)
            stamp_ns = now_ns + _HOP
            at(now_ns + robot.step_ns, 'simulator')
            at(stamp_ns + _HOP, 'joints', env.observe(stamp_ns))
            if stamp_ns >= free_ns:
                rows = _rows(env, expert, robot, rng.normal(0.0, way.noise, 3))
                free_ns = stamp_ns + way.delay_ms * MS - _REST
                chunk = ActionChunk(
                    stamp_ns, stamp_ns, robot.step_ns, robot.joint_names, rows, next(ids)
                )
                at(stamp_ns + way.delay_ms * MS, 'chunk', chunk)
        elif what == 'joints':
            gate.offer_joints(thing, now_ns)
        elif what == 'command':
            sim.offer_trajectory(thing, now_ns)
        else:
            if what == 'chunk':
                gate.offer_chunk(thing, now_ns)
            else:
                at(now_ns + robot.step_ns, 'gate')
            command, _ = gate.tick(now_ns)
            if command is not None:
                at(now_ns + _HOP, 'command', _trajectory(command))
    return env.steps if env.success else None


def _rows(
    env: MetaWorld, expert: Expert, robot: RobotConfig, error: np.ndarray[Any, Any]
) -> Float32Array:
    """The expert's next targets inside the robot's limits, float32 [HORIZON, 4]."""
    rows = np.empty((HORIZON, len(robot.joints)))
    with env.imagine():
        for row in rows:
            row[:] = expert.target()
            env.apply(row)
    rows[:, :3] += error
    lower, upper = [j.lower for j in robot.joints], [j.upper for j in robot.joints]
    return np.clip(rows, lower, upper).astype(np.float32)


def _trajectory(command: Command) -> Trajectory:
    return Trajectory(
        command.stamp_ns, command.names, command.times, command.positions, command.velocities
    )


def _robot(way: Way) -> RobotConfig:
    robot = load_robot('metaworld')
    if way.blend_in is None:
        return robot
    return replace(robot, safety=replace(robot.safety, blend_in=way.blend_in))


def _record(task: str, path: str, steps: list[int | None], seed: int) -> dict[str, Any]:
    won = [n for n in steps if n is not None]
    return {
        'task': task,
        'path': path,
        'episodes': len(steps),
        'successes': len(won),
        'median_steps': float(np.median(won)) if won else None,
        'seeds': [seed, seed + len(steps) - 1],
    }


def main() -> None:
    """Every task, every way; a table, and JSON where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--episodes', type=int, default=20)
    parser.add_argument('--json', default='')
    args = parser.parse_args()
    seeds = range(HELD_OUT_FROM, HELD_OUT_FROM + args.episodes)
    records = []
    for task in BENCHMARK_TASKS:
        env = MetaWorld(task, width=16, height=16)
        steps = [lockstep(env, seed) for seed in bar(seeds, f'{task}, lockstep')]
        records.append(_record(task, 'lockstep', steps, seeds[0]))
        for way in WAYS:
            steps = [live(env, seed, way) for seed in bar(seeds, f'{task}, {way.name}')]
            records.append(_record(task, way.name, steps, seeds[0]))
        env.close()
    print(f'{"path":<26} {"solved":>9}  median steps to success, mean over tasks')
    for name in ('lockstep', *(way.name for way in WAYS)):
        of = [r for r in records if r['path'] == name]
        won, all_ = sum(r['successes'] for r in of), sum(r['episodes'] for r in of)
        mean = np.mean([r['median_steps'] for r in of if r['median_steps'] is not None])
        print(f'{name:<26} {won:>4}/{all_:<4}  {mean:.1f}')
    if args.json:
        document = {
            'robot': 'metaworld',
            'max_steps': MAX_STEPS,
            'clock': 'simulated: none of these figures depends on the machine',
            'records': records,
        }
        Path(args.json).write_text(json.dumps(document, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
