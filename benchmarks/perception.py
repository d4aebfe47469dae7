"""What a detector beside the policy costs it, on this processor, over DDS between processes.

    python benchmarks/perception.py [--detectors sim-objects] [--rates base=5] [--rounds 3]

Two 640x480 cameras at 30 Hz and joint states at 100 Hz come from another process. The policy node
makes chunks with 10 steps, alone and with the perception node in its process, in turns, so that
what the machine does besides falls on both. The figures go into benchmarks/perception.json beside
those that are there already. Run it on an idle machine: every figure is a wall-clock one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from records import put

from vla_trt_ros.bringup import transport_environment
from vla_trt_ros.cli.progress import bar
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.msg import PerceptionTiming, PolicyTiming
from vla_trt_ros.nodes.monitor import Monitor

SETTLE = 4.0  # seconds left out at the start of a run: caches, discovery, page faults
PATIENCE = 60.0  # seconds to the first chunk, and to the first look
GOALS = {'policy_rate_drop_pct': 20.0, 'age_p99_increase_ms': 10.0}
CLOCK = {
    'chunks_per_s': 'chunks heard / seconds between the first and the last of them',
    'policy_rate_drop_pct': 'chunks_per_s with detector against without, medians of the rounds',
    'age_p99_increase_ms': 'p99 of PolicyTiming.end_to_end_ms (oldest exposure -> publish), all '
    'rounds together, with detector less without',
    'detect_p50_ms': 'letterbox, network and post-processing of one look; steady clock',
    'look_age_p50_ms': 'exposure -> detections published; ROS clock',
    'uploads_per_frame': 'host-to-device copies that a look took; 0 without a GPU',
}


def main() -> int:
    """Status 0 where both goals are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--detectors', default='sim-objects', help='as the parameter of the node')
    parser.add_argument('--rates', default='base=5', help='as the parameter of the node')
    parser.add_argument('--platform', default='cpu', help='of policy and detector')
    parser.add_argument('--after-chunk', action='store_true', help='look between two ticks')
    parser.add_argument('--seconds', type=float, default=30.0, help='of each run that count')
    parser.add_argument('--rounds', type=int, default=3, help='of one run each')
    parser.add_argument('--json', default='benchmarks/perception.json', metavar='FILE')
    args = parser.parse_args()
    os.environ.update(transport_environment(os.environ))
    alone: list[list[PolicyTiming]] = []
    beside: list[list[PolicyTiming]] = []
    looks: list[list[PerceptionTiming]] = []
    with node('pattern_node'):
        for _ in bar(range(args.rounds), 'rounds'):
            alone.append(run(args, [])[0])
            extra = ['-p', f'detectors:={args.detectors}', '-p', f'rates:={args.rates}']
            extra += ['-p', f'after_chunk:={args.after_chunk}']
            timings, seen = run(args, extra)
            beside.append(timings)
            looks.append(seen)
    record = {
        'hardware': cpu_name(),
        'python': sys.version.split()[0],
        'setting': f'two 640x480 rgb8 cameras at 30 Hz, joint states at 100 Hz, nano at 10 steps '
        f'on platform {args.platform}, detectors {args.detectors} at {args.rates} in its process, '
        f'after_chunk {args.after_chunk}',
        'rounds': args.rounds,
        'seconds_each': args.seconds,
        'clock': CLOCK,
        **figures(alone, beside, looks, args.seconds * args.rounds),
    }
    told = {name: record[name] for name in GOALS}
    # The accuracy of the detector, and the figures of a GPU with its uploads, are other commands'.
    put(args.json, {**told, 'beside_the_policy': record})
    print(f'wrote {args.json}')
    missed = False
    for name, goal in GOALS.items():
        value = float(str(record[name]))
        missed |= value > goal
        print(f'  {name:<22} {value:8.2f}   <= {goal:g}   {"MISSED" if value > goal else ""}')
    return int(missed)


def run(
    args: argparse.Namespace, perception: list[str]
) -> tuple[list[PolicyTiming], list[PerceptionTiming]]:
    """Timings of ``args.seconds`` of the policy node, with perception where it has arguments."""
    nodes = ['policy', *(['perception'] if perception else [])]
    ros = ['-p', 'num_steps:=10', '-p', f'platform:={args.platform}', *perception]
    cameras = ('base', 'wrist') if perception else ()
    with node('compose', *nodes, '--ros-args', *ros), Monitor(detections=cameras) as monitor:

        def ready() -> bool:
            return bool(monitor.timings) and (bool(monitor.looks) or not perception)

        if not monitor.wait_for(ready, PATIENCE):
            raise SystemExit(f'no chunk, or no look, within {PATIENCE:.0f} s')
        time.sleep(SETTLE)
        first, first_look = len(monitor.timings), len(monitor.looks)
        time.sleep(args.seconds)
        return [timing for _, timing in monitor.timings[first:]], monitor.looks[first_look:]


def figures(
    alone: list[list[PolicyTiming]],
    beside: list[list[PolicyTiming]],
    runs: list[list[PerceptionTiming]],
    seconds: float,
) -> dict[str, object]:
    """What the runs say; lists have an entry a round."""
    looks = [look for run in runs for look in run]
    rates_alone, rates_beside = [rate(r) for r in alone], [rate(r) for r in beside]
    before, after = float(np.median(rates_alone)), float(np.median(rates_beside))
    age_alone = percentile([t.end_to_end_ms for r in alone for t in r], 99)
    age_beside = percentile([t.end_to_end_ms for r in beside for t in r], 99)
    return {
        'chunks_per_s_alone': [round(r, 2) for r in rates_alone],
        'chunks_per_s_beside': [round(r, 2) for r in rates_beside],
        'policy_rate_drop_pct': round(100 * (1 - after / before), 2),
        'age_p99_alone_ms': age_alone,
        'age_p99_beside_ms': age_beside,
        'age_p99_increase_ms': round(age_beside - age_alone, 2),
        'looks_per_s': round(len(looks) / seconds, 2),
        'turns_skipped': sum(_skipped(run) for run in runs),
        'detect_p50_ms': percentile([look.detect_ms for look in looks], 50),
        'detect_p99_ms': percentile([look.detect_ms for look in looks], 99),
        'look_age_p50_ms': percentile([look.end_to_end_ms for look in looks], 50),
        'uploads_per_frame': max(look.uploads for look in looks),
    }


def _skipped(looks: list[PerceptionTiming]) -> int:
    """Turns that were left out in one run; each camera counts its own since it began."""
    first = {look.camera: look.turns_skipped for look in reversed(looks)}
    last = {look.camera: look.turns_skipped for look in looks}
    return sum(last[camera] - first[camera] for camera in last)


def rate(timings: list[PolicyTiming]) -> float:
    """Chunks per second from the first to the last of one run."""
    first, last = timings[0].header.stamp, timings[-1].header.stamp
    seconds = last.sec - first.sec + (last.nanosec - first.nanosec) / 1e9
    return (len(timings) - 1) / seconds


def percentile(values: list[float], q: float) -> float:
    """Rounded to hundredths."""
    return round(float(np.percentile(np.asarray(values, np.float64), q)), 2)


@contextlib.contextmanager
def node(module: str, *words: str) -> Iterator[None]:
    """A node in a process of its own, ended behind the block."""
    command = [sys.executable, '-m', f'vla_trt_ros.nodes.{module}', *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(15)


if __name__ == '__main__':
    sys.exit(main())
