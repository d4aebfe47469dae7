"""Simulator, policy and command node in a closed loop over DDS, for a bounded time: a status line
while it runs, then a video of both cameras, a plot of where the time went, and a summary.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vla_trt_ros.bringup import describe, parse
from vla_trt_ros.cli.processes import Children
from vla_trt_ros.cli.words import step_counts
from vla_trt_ros.config import load_robot
from vla_trt_ros.datatypes import Reason, State
from vla_trt_ros.errors import ConfigError, VlaError
from vla_trt_ros.hardware import cpu_name

if TYPE_CHECKING:
    from vla_trt_ros.nodes.monitor import Monitor

_START_PATIENCE = (
    60.0  # seconds to the first chunk: a first start compiles nothing but reads a lot
)
_FRAME = 0.05  # seconds between looks at the cameras


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long, where to, and the arguments of ``vla-trt up``."""
    parser.add_argument('--seconds', type=float, default=30.0, help='of closed loop')
    parser.add_argument('--out', default='demo_out', help='folder for video, plot and summary')
    parser.add_argument(
        '--steps', default='', help='step counts to change to on the way, such as 10,3,1'
    )
    parser.add_argument(
        'arguments',
        nargs='*',
        metavar='name:=value',
        help='as for vla-trt up, such as task:=drawer-open prompt:="open the drawer"',
    )


def run(args: argparse.Namespace) -> int:
    """Status 0 where chunks came and every node ended cleanly."""
    from vla_trt_ros.nodes.monitor import Monitor

    given = {'sim': 'true', **parse(args.arguments)}
    system = describe(given)
    steps = step_counts(args.steps)
    robot = load_robot(given.get('robot', 'metaworld'))
    topics = {view: camera.topic for view, camera in robot.cameras.items()}
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    log = out / 'nodes.log'
    with (
        log.open('wb') as stream,
        Children(system, stream) as children,
        Monitor(system.namespace, topics) as monitor,
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
        _watch(monitor, children, args.seconds, steps, out / 'demo.mp4')
        statuses = children.stop()
    summary = _summary(monitor, startup, statuses)
    _write(monitor, summary, out)
    bad = {name: status for name, status in statuses.items() if status}
    if bad:
        print(f'ended with an error: {bad}; see {log}', file=sys.stderr)
    return 1 if bad else 0


def _watch(
    monitor: Monitor, children: Children, seconds: float, steps: list[int], video: Path
) -> None:
    from vla_trt_ros.viz.recorder import Recorder

    begin = time.monotonic()
    changes = [(begin + i * seconds / len(steps), n) for i, n in enumerate(steps)]
    with Recorder(video, max_seconds=seconds + 1) as recorder:
        while (now := time.monotonic()) < begin + seconds:
            ended = children.ended()
            if ended is not None:
                raise VlaError(f'{ended[0]} ended with status {ended[1]} during the demo.')
            while changes and changes[0][0] <= now:
                monitor.set_num_steps(changes.pop(0)[1])
            line = status_line(monitor, now - begin)
            recorder.add(now, dict(monitor.pictures), caption(monitor))
            if sys.stdout.isatty():
                print(f'\r{line:<110}', end='', flush=True)
            elif int(now - begin) // 5 != int(now - begin - _FRAME) // 5:
                print(line, flush=True)
            time.sleep(_FRAME)
    print(f'\nwrote {video}', flush=True)


def status_line(monitor: Monitor, seconds: float) -> str:
    """What a person wants to know while the arm moves, on one line."""
    end_to_end = monitor.recent('end_to_end_ms')
    p50, p99 = np.percentile(end_to_end, [50, 99]) if end_to_end.size else (np.nan, np.nan)
    age = monitor.recent('image_age_ms', 1.0)
    dropped = sum(monitor.timings[-1][1].frames_dropped) if monitor.timings else 0
    command = monitor.status.get('command')
    state = State(command.state).name if command else 'UNKNOWN'
    if command and command.reason:
        state += f' ({Reason(command.reason).name})'
    steps = monitor.timings[-1][1].num_steps if monitor.timings else 0
    return (
        f'{seconds:5.1f} s  {state}  {monitor.rate_hz:4.1f} chunks/s at {steps} steps  '
        f'camera {age.mean() if age.size else np.nan:3.0f} ms  '
        f'end to end p50 {p50:3.0f} p99 {p99:3.0f} ms  dropped {dropped}'
    )


def caption(monitor: Monitor) -> str:
    """What stands under the pictures: few words, since they are small."""
    policy, command = monitor.status.get('policy'), monitor.status.get('command')
    state = State(command.state).name.lower() if command else 'unknown'
    prompt = policy.prompt if policy else ''
    steps = policy.num_steps if policy else 0
    return f'{prompt} | {state}, {monitor.rate_hz:.0f} chunks/s, {steps} steps'


def _why_not_started(monitor: Monitor, children: Children, ended: bool, log: Path) -> str:
    tail = '\n'.join(log.read_text(encoding='utf-8', errors='replace').splitlines()[-8:])
    if ended and (child := children.ended()) is not None:
        return f'{child[0]} ended with status {child[1]}; {log} ends with:\n{tail}'
    status = monitor.status.get('policy')
    reason = status.text if status else 'the policy node is not heard'
    return f'no chunk within {_START_PATIENCE:.0f} s: {reason}. {log} ends with:\n{tail}'


def _summary(monitor: Monitor, startup: float, statuses: dict[str, int]) -> dict[str, object]:
    timings = [t for _, t in monitor.timings]
    arrivals = [a for a, _ in monitor.timings]
    span = arrivals[-1] - arrivals[0]
    end_to_end = [t.end_to_end_ms for t in timings]
    command = monitor.status.get('command')
    info = monitor.info
    return {
        'hardware': cpu_name(),
        'bundle': info.bundle if info else '',
        'runtime': info.runtime if info else '',
        'num_steps': sorted({t.num_steps for t in timings}),
        'chunks': len(timings),
        'chunks_per_s': _round((len(timings) - 1) / span if span else 0.0),
        'startup_s': _round(startup),
        'end_to_end_p50_ms': _round(np.percentile(end_to_end, 50)),
        'end_to_end_p99_ms': _round(np.percentile(end_to_end, 99)),
        'deadline_missed': sum(not t.deadline_met for t in timings),
        'frames_received': list(timings[-1].frames_received),
        'frames_dropped': list(timings[-1].frames_dropped),
        'commands_clamped': command.clamped if command else 0,
        'exit_statuses': statuses,
    }


def _write(monitor: Monitor, summary: dict[str, object], out: Path) -> None:
    from vla_trt_ros.viz.timing_plot import plot_timing, record_from_msg

    records = [record_from_msg(t) for _, t in monitor.timings]
    steps = ', '.join(map(str, _as_list(summary['num_steps'])))
    title = f'{summary["bundle"]}, {summary["runtime"]}, {steps} steps, {summary["hardware"]}'
    if len(records) > 1:
        print(f'wrote {plot_timing(records, out / "timing.png", title=title)}')
    path = out / 'summary.json'
    path.write_text(json.dumps(summary, indent=1) + '\n', encoding='utf-8')
    for key, value in summary.items():
        print(f'  {key:<20} {value}')
    print(f'wrote {path}')


def _as_list(value: object) -> list[object]:
    if not isinstance(value, Iterable):
        raise ConfigError(f'{value!r} is not a list.')
    return list(value)


def _round(value: float) -> float:
    return round(float(value), 2)
