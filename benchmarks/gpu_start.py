"""How long a policy on a GPU takes to start, what it holds, and its stages by views and steps.

    vla-trt export --random-weights 0 --size pi05 --backend cuda_graph --precision fp8 \
        --device cuda --out /data/big
    python benchmarks/gpu_start.py /data/big --platform h200 --json benchmarks/gpu-start-h200.json

Starts twice, each in a process of its own: the first may compile kernels, the second finds them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

CLOCK = (
    'seconds: wall clock in one process, files in the page cache; stages: CUDA events in the '
    'graph, median of --replays inferences of 640x480 rgb8 frames'
)


def main():
    """Both starts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('bundle', type=Path)
    parser.add_argument('--platform', default='h200')
    parser.add_argument('--replays', type=int, default=100)
    parser.add_argument('--json', default='', metavar='FILE')
    parser.add_argument('--once', action='store_true', help='one start, here; JSON on stdout')
    args = parser.parse_args()
    if args.once:
        print(json.dumps(start(args)))
        return
    command = [sys.executable, __file__, str(args.bundle), '--once', '--platform', args.platform]
    command += ['--replays', str(args.replays)]
    starts = []
    for name in ('first', 'second'):
        began = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        starts.append({'start': name, **found})
        print(f'{name} start: {found["seconds"]}, process {time.monotonic() - began:.1f} s')
    last = starts[-1]
    print(f'{last["graphs"]} graphs, GPU memory {last["gpu_memory_gb"]:.2f} GB')
    for row in last['stages']:
        print(row)
    if args.json:
        record = {'clock': CLOCK, 'bundle': args.bundle.name, 'starts': starts}
        Path(args.json).write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')


def start(args):
    """One start and its facts."""
    marks = [('', time.monotonic())]

    def lap(name):
        marks.append((name, time.monotonic()))

    import torch

    lap('import_torch')
    from vla_trt_ros.bundle import open_bundle
    from vla_trt_ros.config import load_platform
    from vla_trt_ros.gpu import cuda
    from vla_trt_ros.policies.registry import load_policy_from

    bundle, platform = open_bundle(args.bundle), load_platform(args.platform)
    lap('open_bundle')
    policy = load_policy_from(bundle, platform)
    lap('load_and_capture')
    policy.warm_up()
    lap('warm_up')
    rows = [
        row(policy, bundle, bundle.views[:views], steps, args.replays)
        for views in range(len(bundle.views), 0, -1)
        for steps in policy.num_steps_available
    ]
    free, total = cuda.memory()
    pairs = pairwise(marks)
    return {
        'hardware': torch.cuda.get_device_name(),
        'software': f'torch {torch.__version__}',
        'runtimes': dict(policy.runtimes),
        'graphs': len(bundle.views) * len(policy.prompt_buckets) * len(policy.num_steps_available),
        'seconds': {name: round(end - begin, 2) for (_, begin), (name, end) in pairs},
        'gpu_memory_gb': round((total - free) / 1e9, 2),
        'stages': rows,
    }


def row(policy, bundle, views, steps, replays):
    """Median stage times with these views."""
    from vla_trt_ros.datatypes import CameraFrame, Observation

    rng = np.random.default_rng(0)
    frames = {
        v: CameraFrame(1, 1, v, 'rgb8', 480, 640, 1920, rng.integers(0, 256, 921600, np.uint8))
        for v in views
    }
    state = np.zeros(len(bundle.layout.state), np.float32)
    observation = Observation(frames, state, 'reach the goal')
    runs = [policy.infer(observation, num_steps=steps) for _ in range(replays)]
    names = ('preprocess_ms', 'upload_ms', 'vision_ms', 'prefix_ms', 'denoise_ms', 'download_ms')
    times = {n: np.array([getattr(r.times, n) for r in runs]) for n in names}
    return {
        'views': len(views),
        'steps': steps,
        'prompt_tokens': runs[0].prompt_tokens,
        **{n: round(float(np.median(t)), 3) for n, t in times.items()},
    }


if __name__ == '__main__':
    main()
