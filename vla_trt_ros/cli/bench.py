"""Time a bundle on this machine: synthetic camera frames in, actions in robot units out, per stage
and per step count. Prints a table; --json writes the records for benchmarks/.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.cli.progress import bar
from vla_trt_ros.cli.words import picture_size, step_counts
from vla_trt_ros.config import find_file, load_platform, load_policy
from vla_trt_ros.datatypes import CameraFrame, Observation, StageTimes
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.policies.base import Policy, check_num_steps
from vla_trt_ros.policies.registry import load_policy_from

CLOCK = 'infer(): camera frames on the host in, actions in robot units out; perf_counter'


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a benchmark file; times are medians in milliseconds unless the name says else."""

    hardware: str
    backend: str
    precision: str
    views: int
    prompt_tokens: int
    horizon: int
    steps: int
    e2e_total_ms: float
    vision_ms: float
    prefix_ms: float
    denoise_ms: float
    hz: float
    p50_ms: float
    p99_ms: float
    n: int
    clock: str
    bundle: str
    camera: str
    preprocess_ms: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which bundle, platform and shape; how often."""
    parser.add_argument('--bundle', default='', help="name or path (default: the policy file's)")
    parser.add_argument('--platform', default='cpu', help='file of config/platforms, or a path')
    parser.add_argument('--policy', default='pi05', help='file of config/policies, or a path')
    parser.add_argument('--views', type=int, default=0, help='views with a frame; 0 = all')
    parser.add_argument('--steps', default='1,2,3,5,10', help='denoise step counts, with commas')
    parser.add_argument('--prompt', default='reach the goal', help='its length chooses the bucket')
    parser.add_argument('--camera', default='640x480', help='size of the camera images')
    parser.add_argument('-n', type=int, default=200, help='timed runs per step count')
    parser.add_argument('--warm-up', type=int, default=20, help='untimed runs before')
    parser.add_argument('--json', default='', metavar='FILE', help='write the records; - = stdout')


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    steps = step_counts(args.steps)
    if args.n < 1:
        raise ConfigError(f'-n {args.n}: one timed run at least.')
    platform = load_platform(args.platform)
    name = args.bundle or load_policy(args.policy).bundle
    bundle = open_bundle(find_file('bundles', name, ''))
    policy = load_policy_from(bundle, platform)
    try:
        for count in steps:
            check_num_steps(count, policy.num_steps_available)
        observation = synthetic_observation(policy, args.prompt, args.camera, args.views)
        records = [
            measure(policy, observation, count, args.n, args.warm_up, args.camera)
            for count in steps
        ]
    finally:
        policy.close()
    if args.json != '-':
        print(table(records))
    if args.json:
        text = json.dumps([asdict(r) for r in records], indent=1) + '\n'
        if args.json == '-':
            print(text, end='')
        else:
            Path(args.json).write_text(text, encoding='utf-8')
            print(f'wrote {args.json}')
    return 0


def synthetic_observation(policy: Policy, prompt: str, camera: str, views: int) -> Observation:
    """Smooth random pictures (seeded), one per view, and a state in the middle of its range."""
    width, height = picture_size('--camera', camera)
    if not 0 <= views <= len(policy.views):
        raise ConfigError(
            f'--views {views}: bundle {policy.bundle.name} has {len(policy.views)} views '
            f'({", ".join(policy.views)}); 0 is all of them.'
        )
    used = policy.views[: views or None]
    rng = np.random.default_rng(0)
    frames = {}
    for view in used:
        coarse = rng.integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), np.uint8)
        pixels = np.repeat(np.repeat(coarse, 32, 0), 32, 1)[:height, :width]
        data = np.ascontiguousarray(pixels).reshape(-1)
        frames[view] = CameraFrame(1, 1, view, 'rgb8', height, width, 3 * width, data)
    state = np.zeros(len(policy.bundle.layout.state), np.float32)
    return Observation(frames, state, prompt)


def measure(
    policy: Policy, observation: Observation, steps: int, n: int, warm_up: int, camera: str
) -> Record:
    """One record over ``n`` runs."""
    for _ in range(warm_up):
        policy.infer(observation, num_steps=steps)
    totals, stages, tokens = [], [], 0
    for _ in bar(range(n), f'{steps:>2} steps'):
        begin = time.perf_counter()
        result = policy.infer(observation, num_steps=steps)
        totals.append((time.perf_counter() - begin) * 1e3)
        stages.append(result.times)
        tokens = result.prompt_tokens
    p50, p99 = np.percentile(totals, [50, 99])
    runtimes = list(dict.fromkeys(policy.runtimes.values()))
    backend = ' + '.join(dict.fromkeys(r.rpartition(' ')[0] for r in runtimes))
    precision = ' + '.join(dict.fromkeys(r.rpartition(' ')[2] for r in runtimes))
    return Record(
        hardware=cpu_name(),
        backend=backend,
        precision=precision,
        views=len(observation.frames),
        prompt_tokens=tokens,
        horizon=policy.horizon,
        steps=steps,
        e2e_total_ms=round(float(p50), 3),
        vision_ms=_median(stages, 'vision_ms'),
        prefix_ms=_median(stages, 'prefix_ms'),
        denoise_ms=_median(stages, 'denoise_ms'),
        hz=round(1e3 / float(p50), 2),
        p50_ms=round(float(p50), 3),
        p99_ms=round(float(p99), 3),
        n=n,
        clock=CLOCK,
        bundle=policy.bundle.name,
        camera=camera,
        preprocess_ms=_median(stages, 'preprocess_ms'),
    )


def table(records: list[Record]) -> str:
    """Latency per step count with each stage's share, and the linear model of denoise time."""
    first = records[0]
    lines = [
        f'{first.hardware}',
        f'bundle {first.bundle}, {first.backend} {first.precision}, {first.views} views of '
        f'{first.camera}, {first.prompt_tokens} prompt tokens, horizon {first.horizon}, '
        f'n = {first.n}',
        f'clock: {first.clock}',
        '',
        'steps   total ms    p99 ms      Hz   preprocess   vision          prefix         denoise',
    ]
    for r in records:
        shares = '  '.join(
            f'{value:6.2f} ({100 * value / r.e2e_total_ms:4.1f} %)'
            for value in (r.vision_ms, r.prefix_ms, r.denoise_ms)
        )
        lines.append(
            f'{r.steps:>5}   {r.e2e_total_ms:8.2f}  {r.p99_ms:8.2f}  {r.hz:6.1f}   '
            f'{r.preprocess_ms:10.2f}  {shares}'
        )
    if len(records) > 1:
        x = np.array([r.steps for r in records], np.float64)
        y = np.array([r.denoise_ms for r in records], np.float64)
        slope, offset = np.polyfit(x, y, 1)
        worst = np.abs(slope * x + offset - y).max()
        lines += [
            '',
            f'denoise = {slope:.2f} ms x steps + {offset:.2f} ms (largest error {worst:.2f} ms)',
        ]
    return '\n'.join(lines)


def _median(stages: list[StageTimes], name: str) -> float:
    return round(float(np.median([getattr(s, name) for s in stages])), 3)
