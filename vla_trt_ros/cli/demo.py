"""Simulator, policy and command node in a closed loop over DDS, told one task after another: a
status line while they run, then a video of both cameras, a plot of where the time went, and a
summary of what was solved. With --episodes it is an evaluation through the real nodes.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from vla_trt_ros.bringup import describe, parse
from vla_trt_ros.cli.demo_report import summarise, write, write_records, write_scene
from vla_trt_ros.cli.demo_stage import Stage
from vla_trt_ros.cli.demo_turns import Turn, turns
from vla_trt_ros.cli.processes import Children
from vla_trt_ros.cli.words import step_counts
from vla_trt_ros.config import RobotConfig, load_robot
from vla_trt_ros.errors import ConfigError, VlaError
from vla_trt_ros.perception.choice import turns_of
from vla_trt_ros.sim.prompts import BENCHMARK_TASKS
from vla_trt_ros.sim.seeds import HELD_OUT_FROM

if TYPE_CHECKING:
    from vla_trt_ros.nodes.director import Director
    from vla_trt_ros.nodes.monitor import Monitor
    from vla_trt_ros.viz.recorder import Recorder

_START_PATIENCE = (
    60.0  # seconds to the first chunk: a first start compiles nothing but reads a lot
)
# These two show the same scene on the same seed: told apart by the words alone.
_ALIKE = ('reach', 'pick-place')
_TASKS = (*_ALIKE, *(task for task in BENCHMARK_TASKS if task not in _ALIKE))
_DEMO = 75.0  # seconds, where nobody says how many episodes
_EPISODE = 12.5  # seconds: the 250 control steps of `vla-trt sim eval`
_SWITCH = 2.0  # seconds to spare for a switch of task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to play, how often, where to, and the arguments of ``vla-trt up``."""
    parser.add_argument(
        '--tasks', default='', help='comma-separated, in this order; default: all that nano knows'
    )
    parser.add_argument('--episodes', type=int, default=0, help='of each task; default 1')
    parser.add_argument(
        '--seed', type=int, default=HELD_OUT_FROM, help='of the first scene of each task'
    )
    parser.add_argument(
        '--limit',
        type=float,
        default=0.0,
        help=f'seconds that an episode may take; default {_EPISODE}, less where that is too long '
        'for all of them to fit',
    )
    parser.add_argument(
        '--seconds',
        type=float,
        default=0.0,
        help=f'of closed loop in all; default {_DEMO:.0f}, and no bound with --episodes',
    )
    parser.add_argument('--out', default='demo_out', help='folder for video, plot and summary')
    parser.add_argument('--no-video', action='store_true', help='leave the processor to the loop')
    parser.add_argument('--json', default='', help='write success per task to this file')
    parser.add_argument(
        '--steps', default='', help='step counts to play everything with, such as 10,3,1'
    )
    parser.add_argument(
        'arguments',
        nargs='*',
        metavar='name:=value',
        help='as for vla-trt up, such as task:=drawer-open prompt:="open the drawer"',
    )


def run(args: argparse.Namespace) -> int:
    """Status 0 where chunks came and every node ended cleanly, however many tasks were solved;
    130 after Ctrl-C. What was played until then, or until a node failed, is written all the same.
    """
    from vla_trt_ros.nodes.director import Director
    from vla_trt_ros.nodes.monitor import Monitor

    given = {'sim': 'true', **parse(args.arguments)}
    plan = _plan(args, given)
    given['task'] = plan[0].task
    system = describe(given)
    robot = load_robot(given.get('robot', 'metaworld'))
    topics = {view: camera.topic for view, camera in robot.cameras.items()}
    looked_at = _cameras_looked_at(given, robot)
    until = args.seconds or (_DEMO if not args.episodes else math.inf)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    log = out / 'nodes.log'
    with (
        log.open('wb') as stream,
        Children(system, stream) as children,
        Monitor(system.namespace, {} if args.no_video else topics, looked_at) as monitor,
    ):
        print(f'starting {", ".join(children.pids())}; their output is in {log}', flush=True)
        begin = time.monotonic()
        started = monitor.wait_for(
            lambda: bool(monitor.timings) or children.ended() is not None, _START_PATIENCE
        )
        if not monitor.timings:
            raise VlaError(_why_not_started(monitor, children, started, log))
        startup = time.monotonic() - begin
        print(f'first chunk after {startup:.1f} s', flush=True)
        stage = Stage(monitor, children, linger=0.0 if args.no_video else 1.0)
        film = _film(args, out, min(until, sum(t.limit + 5.0 for t in plan)))
        stopped = _play(stage, Director(monitor, stage.look), film, plan, until)
        if isinstance(stopped, VlaError) and not stage.played:
            raise stopped
        statuses = children.stop()
    summary = summarise(monitor, stage.played, startup, statuses)
    write(monitor, summary, out)
    if stage.scene is not None:
        print(f'wrote {write_scene(stage.scene, robot, out)}')
    if args.json:
        print(f'wrote {write_records(summary, Path(args.json))}')
    if isinstance(stopped, VlaError):
        raise stopped
    bad = {name: status for name, status in statuses.items() if status}
    if stopped is not None:
        print('stopped; the task in progress is not counted', file=sys.stderr)
        return 130
    if bad:
        print(f'ended with an error: {bad}; see {log}', file=sys.stderr)
    return 1 if bad else 0


def _cameras_looked_at(given: dict[str, str], robot: RobotConfig) -> tuple[str, ...]:
    if not given.get('detectors'):
        return ()
    return tuple(turns_of(given.get('detector_rates', 'all=5'), robot.cameras))


def _plan(args: argparse.Namespace, given: dict[str, str]) -> list[Turn]:
    tasks = [task for task in args.tasks.split(',') if task]
    if tasks and 'task' in given:
        raise ConfigError('give --tasks or task:=, not both.')
    for name in ('limit', 'seconds', 'episodes', 'seed'):
        if getattr(args, name) < 0:
            raise ConfigError(f'--{name} {getattr(args, name)} must not be negative.')
    tasks = tasks or ([given['task']] if 'task' in given else list(_TASKS))
    steps = step_counts(args.steps) or [int(given.get('num_steps', '10'))]
    limit = args.limit or _EPISODE
    if not args.limit and not args.episodes:
        share = (args.seconds or _DEMO) / (len(tasks) * len(steps))
        limit = min(limit, max(share - _SWITCH, 1.0))
    return turns(
        tasks,
        seed=args.seed,
        steps=steps,
        limit=limit,
        episodes=args.episodes or 1,
        prompt=given.get('prompt', ''),
    )


def _play(
    stage: Stage,
    director: Director,
    film: AbstractContextManager[Recorder | None],
    plan: list[Turn],
    until: float,
) -> KeyboardInterrupt | VlaError | None:
    """What ended the play before its time, if something did."""
    try:
        with film as stage.recorder:
            for turn in plan:
                if stage.seconds < until:
                    stage.play(director, turn, until)
    except (KeyboardInterrupt, VlaError) as error:
        return error
    return None


def _film(
    args: argparse.Namespace, out: Path, seconds: float
) -> AbstractContextManager[Recorder | None]:
    from vla_trt_ros.viz.recorder import Recorder

    if args.no_video:
        return nullcontext()
    return Recorder(out / 'demo.mp4', max_seconds=seconds + 10.0)


def _why_not_started(monitor: Monitor, children: Children, ended: bool, log: Path) -> str:
    tail = '\n'.join(log.read_text(encoding='utf-8', errors='replace').splitlines()[-8:])
    if ended and (child := children.ended()) is not None:
        return f'{child[0]} ended with status {child[1]}; {log} ends with:\n{tail}'
    status = monitor.status.get('policy')
    reason = status.text if status else 'the policy node is not heard'
    return f'no chunk within {_START_PATIENCE:.0f} s: {reason}. {log} ends with:\n{tail}'
