"""A bag of the simulator's teacher at work: cameras, joint states, commands and prompts.

Usage: expert_bag.py OUT [--minutes 1] [--seed 900000] [--tasks reach,push] [--size 224]

Tasks take turns, each on the next seed, until the bag is as long as asked. Episodes end eight
steps after success, two seconds of silence lie between them. Times are simulated, 50 ms a step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from vla_trt_ros.bags.composing import Composer
from vla_trt_ros.bags.writer import BagWriter
from vla_trt_ros.config import RobotConfig, load_robot
from vla_trt_ros.datatypes import NS, Command, CommandKind
from vla_trt_ros.sim.env import camera_frame
from vla_trt_ros.sim.gl import choose_gl

choose_gl()

from vla_trt_ros.sim.metaworld import MetaWorld  # noqa: E402 - after OpenGL was chosen
from vla_trt_ros.sim.suites import load_suite  # noqa: E402
from vla_trt_ros.sim.teacher import Teacher  # noqa: E402

BEGIN_NS = 1_700_000_000 * NS
_SILENCE_NS = 2 * NS
_AFTER_SUCCESS, _MOST_STEPS = 8, 250


def main() -> None:
    """Write the bag."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path)
    parser.add_argument('--minutes', type=float, default=1.0, help='of pictures, silences aside')
    parser.add_argument('--seed', type=int, default=900_000, help='the first one')
    parser.add_argument('--tasks', default='', help="with commas (default: nano's seven)")
    parser.add_argument('--size', type=int, default=224, help='side of the pictures, pixels')
    args = parser.parse_args()
    tasks = [t for t in args.tasks.split(',') if t] or list(load_suite('metaworld').default_tasks)
    steps = make_bag(args.out, tasks, args.seed, args.minutes, args.size)
    print(f'{args.out}: {steps} frame pairs')


def make_bag(out: Path, tasks: list[str], seed: int, minutes: float, size: int = 224) -> int:
    """Write ``out``; the number of frame pairs in it."""
    robot = load_robot('metaworld')
    wanted = round(minutes * 60 * robot.control_rate)
    environments: dict[str, MetaWorld] = {}
    steps, now_ns = 0, BEGIN_NS
    with BagWriter(out) as bag:
        write = Composer(bag)
        while steps < wanted:
            for task in tasks:
                if task not in environments:
                    environments[task] = MetaWorld(task, width=size, height=size)
                env = environments[task]
                env.reset(seed)
                write.text('policy/prompt', now_ns, env.prompt)
                now_ns = _episode(env, robot, write, now_ns, wanted - steps)
                steps += env.steps
                now_ns += _SILENCE_NS
                if steps >= wanted:
                    break
            seed += 1
    for env in environments.values():
        env.close()
    return steps


def _episode(
    env: MetaWorld, robot: RobotConfig, write: Composer, now_ns: int, most_steps: int
) -> int:
    """Record one episode from ``now_ns`` on; when it is over."""
    teacher = Teacher(env)
    left = _AFTER_SUCCESS
    while env.steps < min(most_steps, _MOST_STEPS) and left > 0:
        write.joints(robot.joint_states_topic, env.observe(now_ns))
        for view, picture in env.render().items():
            write.image(robot.cameras[view].topic, camera_frame(picture, now_ns, view))
        target = teacher.target()
        write.command(
            robot.controller.topic,
            Command(
                CommandKind.TRAJECTORY,
                now_ns + 1,
                robot.joint_names,
                target[None],
                np.zeros((1, len(target))),
                np.array([robot.step_ns / NS]),
            ),
        )
        env.apply(target)
        left -= env.success
        now_ns += robot.step_ns
    return now_ns


if __name__ == '__main__':
    main()
