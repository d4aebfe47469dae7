"""Record demonstrations of Meta-World's tasks: a scripted teacher, disturbed on the way, works on
one random scene after another; what both cameras saw becomes a LeRobot v3.0 data set.

Stop with Ctrl-C; the same command goes on. A larger --episodes, other tasks or another --seed add
to what is there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from vla_trt_ros.cli.progress import bar
from vla_trt_ros.config import load_robot
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.sim.prompts import BENCHMARK_TASKS, task_name
from vla_trt_ros.sim.seeds import HELD_OUT_FROM, check_training_seeds
from vla_trt_ros.tables import grid

if TYPE_CHECKING:
    from vla_trt_ros.sim.dataset.writer import DatasetWriter
    from vla_trt_ros.sim.recording import Job, Settings

INTERRUPTED = 130
_HORIZON = 10
_VIEWS = ('base', 'wrist')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is recorded, how, and where to."""
    parser.add_argument(
        '--tasks', default=','.join(BENCHMARK_TASKS), help='with commas (default: %(default)s)'
    )
    parser.add_argument('--episodes', type=int, default=50, help='scenes of each task')
    parser.add_argument(
        '--seed', type=int, default=0, help='of the first scene; scene k is of seed + k'
    )
    parser.add_argument(
        '--allow-held-out-seeds',
        action='store_true',
        help=f'record scenes from {HELD_OUT_FROM} up, which success is measured on',
    )
    parser.add_argument(
        '--noise', default='0,0.3,0.6', help='levels of disturbance, one an episode, in turn'
    )
    parser.add_argument('--max-steps', type=int, default=250, help='longer is failed')
    parser.add_argument(
        '--retry-failed', action='store_true', help='scenes that failed before, too'
    )
    parser.add_argument('--stride', type=int, default=1, help='control steps between frames')
    parser.add_argument('--image-size', type=int, default=224, help='pixels a side')
    parser.add_argument('--workers', type=int, default=0, help='processes (default: one a core)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='the data set')


def run(args: argparse.Namespace) -> int:
    """Record what is missing and say what is there; status 130 after Ctrl-C."""
    from vla_trt_ros.sim.dataset.layout import Layout
    from vla_trt_ros.sim.dataset.writer import DatasetWriter
    from vla_trt_ros.sim.recording import Settings, missing, plan
    from vla_trt_ros.sim.rendering import check_size

    seeds = _seeds(args)
    scenes = [task_name(word) for word in args.tasks.split(',') if word.strip()]
    noises = _levels(args.noise)
    if args.max_steps < 1 or args.stride < 1 or args.workers < 0:
        raise ConfigError(
            f'--max-steps {args.max_steps} and --stride {args.stride} must be 1 at least, '
            f'--workers {args.workers} not negative.'
        )
    if not scenes:
        raise ConfigError(f'--tasks {args.tasks!r} names no task; try {BENCHMARK_TASKS[0]}.')
    check_size(args.image_size, args.image_size)
    robot = load_robot('metaworld')
    if not (robot.control_rate / args.stride).is_integer():
        raise ConfigError(
            f'--stride {args.stride} gives {robot.control_rate / args.stride:.2f} frames a second,'
            f' and a data set wants a whole number: choose a divisor of {robot.control_rate:g}.'
        )
    shape = Layout(
        robot=robot.name,
        fps=int(robot.control_rate / args.stride),
        views=_VIEWS,
        width=args.image_size,
        height=args.image_size,
        joints=tuple(joint.name for joint in robot.joints),
        horizon=_HORIZON,
    )
    settings = Settings(args.out, shape, args.max_steps, args.stride, len(noises))
    with DatasetWriter(args.out, shape) as writer:
        if args.retry_failed:
            writer.forget_failures()
        planned = plan(scenes, seeds, noises)
        jobs = missing(planned, writer)
        if len(jobs) < len(planned):
            print(f'{len(planned) - len(jobs)} of {len(planned)} scenes are done already')
        whole = _record(writer, settings, jobs, args.workers)
    # Opened anew, the data set has everything that an interrupt left outside.
    with DatasetWriter(args.out, shape) as writer:
        _report(writer)
    return 0 if whole else INTERRUPTED


def _record(writer: DatasetWriter, settings: Settings, jobs: Sequence[Job], workers: int) -> bool:
    """Do the jobs; False where Ctrl-C came first."""
    from vla_trt_ros.sim.recording import record

    done = solved = 0
    running = record(writer, settings, jobs, workers=workers)
    shown = bar(running, 'scenes', total=len(jobs), note=lambda: f'{solved} of {done} solved')
    begin = time.monotonic()
    with closing(running):
        try:
            for outcome in shown:
                done, solved = done + 1, solved + (outcome.staged is not None)
        except KeyboardInterrupt:
            print('\nstopped; the same command goes on', file=sys.stderr)
            return False
    if jobs:
        seconds = time.monotonic() - begin
        print(f'{len(jobs)} scenes in {seconds:.0f} s, {solved} solved')
    return True


def _report(writer: DatasetWriter) -> None:
    """What the data set holds, task by task."""
    table = [('task', 'episodes', 'failed', 'frames', 'frames at the median')]
    failed = Counter(scene for scene, _ in writer.failed)
    lengths: dict[str, list[int]] = {scene: [] for scene in failed}
    for row in writer.rows:
        lengths.setdefault(row['scene'], []).append(row['length'])
    for scene, frames in sorted(lengths.items()):
        middle = f'{statistics.median(frames):.0f}' if frames else '-'
        total = str(sum(frames))
        table.append((scene, str(len(frames)), str(failed[scene]), total, middle))
    for line in grid(table):
        print(line)
    size = sum(path.stat().st_size for path in writer.root.rglob('*.parquet'))
    print(
        f'{writer.root}: {writer.episodes} episodes, {writer.frames} frames, {size / 1e6:.0f} MB'
    )


def _seeds(args: argparse.Namespace) -> range:
    if args.episodes < 1:
        raise ConfigError(f'--episodes {args.episodes}: at least 1 a task.')
    seeds = range(args.seed, args.seed + args.episodes)
    if not args.allow_held_out_seeds or args.seed < 0:
        try:
            check_training_seeds(seeds)
        except ConfigError as error:
            raise ConfigError(f'{error} Or say --allow-held-out-seeds.') from None
    return seeds


def _levels(text: str) -> list[float]:
    try:
        levels = [float(word) for word in text.split(',') if word.strip()]
    except ValueError:
        levels = []
    if not levels or not all(0.0 <= level <= 1.0 for level in levels):
        raise ConfigError(f'--noise {text!r}: write levels from 0 to 1, such as 0,0.3,0.6.')
    return levels
