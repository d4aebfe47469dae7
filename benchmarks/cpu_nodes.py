"""The figures of the ROS nodes on this processor, over DDS between processes.

    python benchmarks/cpu_nodes.py [--quick] [--json benchmarks/cpu-nodes.json]

Two runs. In the first the Meta-World simulator closes the loop on the same machine. In the second,
two 640x480 cameras at 30 Hz and joint states at 100 Hz come from another process, and the policy
node makes chunks with 10 steps: timed for a minute, then its memory is watched up to ten minutes
(--quick: one). Run it on an idle machine: every figure is a wall-clock one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from builtin_interfaces.msg import Time

from vla_trt_ros.bringup import describe, transport_environment
from vla_trt_ros.cli.processes import Children
from vla_trt_ros.cli.progress import bar
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.msg import PolicyTiming
from vla_trt_ros.nodes.monitor import Monitor

SETTLE = 5.0  # seconds left out at the start: caches, discovery, page faults
RATE = 30.0  # Hz of each camera
GOALS = {
    'arrival_ratio': ('>=', 0.99),
    'chunks_per_s': ('>=', 15.0),
    'transport_p99_ms': ('<=', 20.0),
    'overhead_p99_ms': ('<=', 8.0),
    'sim_chunks_per_s': ('>=', 10.0),
    'memory_growth_mib': ('<=', 10.0),
    'startup_s': ('<=', 15.0),
}


def main() -> int:
    """Status 0 where every goal is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--json', default='benchmarks/cpu-nodes.json', metavar='FILE')
    parser.add_argument('--quick', action='store_true', help='memory over one minute, not ten')
    parser.add_argument('--seconds', type=float, default=60.0, help='of each timed window')
    args = parser.parse_args()
    os.environ.update(transport_environment(os.environ))
    minutes = 1.0 if args.quick else 10.0
    record = {
        'hardware': cpu_name(),
        'python': sys.version.split()[0],
        'setting': 'two 640x480 rgb8 cameras at 30 Hz, joint states at 100 Hz, 10 steps, nano',
        'clock': CLOCK,
        **simulator_on_the_same_cores(args.seconds),
        **cameras_in_another_process(args.seconds, minutes),
    }
    missed = report(record, GOALS)
    Path(args.json).write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
    print(f'wrote {args.json}')
    return 1 if missed else 0


CLOCK = {
    'arrival_ratio': 'frames in the policy node / frames published, both cameras, whole run',
    'chunks_per_s': 'chunks published / seconds',
    'transport_p99_ms': 'header stamp, set before publish() -> latest-frame slot; ROS clock',
    'overhead_p99_ms': 'frame in the slot (or the tick before it done) -> chunk published, less '
    'vision, prefix and denoise',
    'sim_chunks_per_s': 'the same with the simulator, its rendering and the command node',
    'memory_growth_mib': 'RSS of the policy node, last minute against first, medians',
    'startup_s': 'process started -> first chunk heard',
}


def cameras_in_another_process(seconds: float, minutes: float) -> dict[str, object]:
    """The policy node alone, fed by a pattern node in a process of its own."""
    frames = int(RATE * (SETTLE + max(seconds, 60 * minutes) + 20))
    with contextlib.ExitStack() as stack:
        monitor = stack.enter_context(Monitor())
        stack.enter_context(node('pattern_node', rate=RATE, frames=frames))
        begin = time.monotonic()
        policy = stack.enter_context(node('policy_node', num_steps=10))
        if not monitor.wait_for(lambda: bool(monitor.timings), 60):
            raise SystemExit('no chunk within 60 s')
        startup = time.monotonic() - begin
        time.sleep(SETTLE)
        memory = _memory_of(policy.pid, minutes)
        # The cameras count their frames and fall silent: then all that arrived is known.
        monitor.wait_for(lambda: silent(monitor), 60)
        received = list(monitor.timings[-1][1].frames_received)
        unseen = [frames - n for n in received]
    start = begin + startup + SETTLE
    timings = [t for arrived, t in monitor.timings if start < arrived < start + seconds]
    edge = max(1, len(memory) // max(2, round(minutes)))
    growth = float(np.median(memory[-edge:]) - np.median(memory[:edge]))
    transport = np.array([t.transport_ms for t in timings])
    return {
        'startup_s': rounded(startup),
        'arrival_ratio': round(sum(received) / (2 * frames), 5),
        'frames_published': frames,
        'frames_received': received,
        'frames_lost': unseen,
        'timed_seconds': seconds,
        'timed_chunks': len(timings),
        'chunks_per_s': rounded(rate(timings)),
        'transport_p50_ms': percentile(transport, 50),
        'transport_p99_ms': percentile(transport, 99),
        'overhead_p50_ms': percentile(overhead_ms(timings), 50),
        'overhead_p99_ms': percentile(overhead_ms(timings), 99),
        'engine_p50_ms': percentile([t.engine_ms for t in timings], 50),
        'end_to_end_p50_ms': percentile([t.end_to_end_ms for t in timings], 50),
        'end_to_end_p99_ms': percentile([t.end_to_end_ms for t in timings], 99),
        'memory_minutes': minutes,
        'memory_mib': rounded(memory[-1]),
        'memory_growth_mib': rounded(growth),
        'policy_exit_status': policy.returncode,
    }


def simulator_on_the_same_cores(seconds: float) -> dict[str, object]:
    """Simulator, policy and command node, as the demo runs them."""
    system = describe({'sim': 'true', 'num_steps': '10'})
    with Children(system, subprocess.DEVNULL) as children, Monitor() as monitor:
        if not monitor.wait_for(lambda: bool(monitor.timings), 60):
            raise SystemExit('no chunk within 60 s of the simulator')
        time.sleep(SETTLE)
        first = len(monitor.timings)
        for _ in bar(range(int(seconds * 10)), 'simulator'):
            time.sleep(0.1)
        timings = [t for _, t in monitor.timings[first:]]
        statuses = children.stop()
    return {
        'sim_chunks_per_s': rounded(rate(timings)),
        'sim_end_to_end_p50_ms': percentile([t.end_to_end_ms for t in timings], 50),
        'sim_end_to_end_p99_ms': percentile([t.end_to_end_ms for t in timings], 99),
        'sim_exit_statuses': statuses,
    }


def overhead_ms(timings: list[PolicyTiming]) -> np.ndarray:
    """Per chunk: from frame in the slot to published chunk, less the engines.

    Where the tick before was still running when the frame came, the wait for it is engine time of
    that tick and left out. A chunk's own publish time is told by the next message.
    """
    values = []
    for before, this, after in zip(timings, timings[1:], timings[2:], strict=False):
        own = this.inference_ms - this.engine_ms + after.publish_ms
        published = _ms(this.header.stamp)
        in_slot = published - this.inference_ms - this.wait_ms
        idle = _ms(before.header.stamp) + this.publish_ms < in_slot
        values.append(own + (this.wait_ms if idle else 0.0))
    return np.array(values)


def report(record: dict[str, object], goals: dict[str, tuple[str, float]]) -> list[str]:
    """Print every goal with its figure; the names of those missed."""
    missed = []
    for name, (relation, goal) in goals.items():
        value = float(str(record[name]))
        met = value >= goal if relation == '>=' else value <= goal
        print(f'  {name:<20} {value:>9.3f}   {relation} {goal:g}   {"" if met else "MISSED"}')
        if not met:
            missed.append(name)
    return missed


@contextlib.contextmanager
def node(
    module: str,
    log: int | IO[bytes] = subprocess.DEVNULL,
    arguments: Sequence[str] = (),
    **parameters: object,
) -> Iterator[subprocess.Popen[bytes]]:
    """A node in a process of its own, which SIGINT ends; ``log`` takes what it says.

    One that does not end within 15 s is aborted, and ``log`` has where its threads were.
    """
    words = [sys.executable, '-m', f'vla_trt_ros.nodes.{module}', *arguments, '--ros-args']
    for name, value in parameters.items():
        words += ['-p', f'{name}:={value}']
    environment = {**os.environ, 'PYTHONFAULTHANDLER': '1'}
    process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            process.wait()


def _memory_of(pid: int, minutes: float) -> list[float]:
    """Resident memory in MiB, once a second."""
    samples = []
    for _ in bar(range(round(60 * minutes)), 'memory'):
        status = Path(f'/proc/{pid}/status').read_text(encoding='utf-8')
        samples.append(int(status.partition('VmRSS:')[2].split()[0]) / 1024)
        time.sleep(1.0)
    return samples


def silent(monitor: Monitor) -> bool:
    """Whether no chunk came for two seconds."""
    return time.monotonic() - monitor.timings[-1][0] > 2.0


def rate(timings: list[PolicyTiming]) -> float:
    """Chunks per second, by the times of their publishing."""
    return (
        (len(timings) - 1) * 1e3 / (_ms(timings[-1].header.stamp) - _ms(timings[0].header.stamp))
    )


def _ms(stamp: Time) -> float:
    return stamp.sec * 1e3 + stamp.nanosec / 1e6


def percentile(values: object, q: float) -> float:
    """The ``q``-th percentile, to a thousandth."""
    return rounded(float(np.percentile(np.asarray(values, np.float64), q)))


def rounded(value: float) -> float:
    """To a thousandth."""
    return round(value, 3)


if __name__ == '__main__':
    sys.exit(main())
