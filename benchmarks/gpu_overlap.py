"""Chunks a second of a policy on this GPU, one after the other and overlapping; no ROS.

    python benchmarks/gpu_overlap.py --bundle BUNDLE --platform h200-bf16 [--json FILE]

Frames are always there: those of a chunk are copied to the GPU while the one before is in the
making, as a node does. Both ways draw the same noise, and their actions must be the same to the
bit. A record is merged into the list in FILE. BUNDLE has files for cuda_graph: `vla-trt export
--random-weights 0 --size pi05 --backend cuda_graph --device cuda` makes one, and so does
benchmarks/h200_all.py --work DIR.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.cli.bench_measure import prompt_of, synthetic_observation
from vla_trt_ros.cli.words import step_counts
from vla_trt_ros.config import find_file, load_platform
from vla_trt_ros.gpu import cuda
from vla_trt_ros.gpu.device import device_name
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.policies.registry import load_policy_from

SAME = ('hardware', 'precision', 'views', 'prompt_tokens', 'horizon', 'steps')
STAGES = ('upload', 'vision', 'prefix', 'denoise', 'download')
CLOCK = {
    'chunks_per_s': 'submitted, actions back, frames copied beside; as many in the making as '
    'there are places; perf_counter',
    'latency_p50_ms': 'submit() -> result(), of one chunk',
    'vision_p50_ms': 'and the other stages: CUDA events, what another chunk took away included',
}


def main() -> int:
    """Status 0 where both ways gave the same actions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--bundle', required=True, help='name or path')
    parser.add_argument('--platform', required=True, help='every stage on cuda_graph')
    parser.add_argument('--steps', default='10', help='denoise step counts, with commas')
    parser.add_argument('--prompt-tokens', type=int, default=0, metavar='N', help='(the largest)')
    parser.add_argument('-n', type=int, default=300, help='timed chunks')
    parser.add_argument('--json', type=Path, metavar='FILE', help='merged into')
    args = parser.parse_args()
    bundle = open_bundle(find_file('bundles', args.bundle, ''))
    platform = load_platform(args.platform)
    steps, records, actions = step_counts(args.steps), {}, {}
    for overlap in (False, True):
        begin = time.perf_counter()
        policy = load_policy_from(bundle, platform, overlap=overlap)
        policy.warm_up()
        seconds = time.perf_counter() - begin
        free, total = cuda.memory()
        tokens = args.prompt_tokens or policy.prompt_buckets[-1]
        seen = synthetic_observation(policy, prompt_of(policy, tokens), '640x480', 0)
        name = 'on' if overlap else 'off'
        for count in steps:
            found, actions[name, count] = timed(policy, seen, count, args.n)
            record = records.setdefault(
                count,
                {
                    'hardware': device_name(),
                    'host': cpu_name(),
                    'precision': platform.stage('denoise').precision,
                    'views': len(policy.views),
                    'prompt_tokens': found['prompt_tokens'],
                    'horizon': policy.horizon,
                    'steps': count,
                    'n': args.n,
                    'clock': CLOCK,
                },
            )
            del found['prompt_tokens']
            record[name] = found | {
                'load_s': round(seconds, 2),
                'gpu_memory_mib': round((total - free) / (1 << 20), 1),
            }
            print(f'{count} steps, overlap {name}: {json.dumps(found)}', flush=True)
        policy.close()
    same = True
    for count, record in records.items():
        record['same_actions'] = bool(np.array_equal(actions['off', count], actions['on', count]))
        same &= record['same_actions']
        gain = record['on']['chunks_per_s'] / record['off']['chunks_per_s']
        print(f'{count} steps: {gain:.2f} x the chunks, same actions: {record["same_actions"]}')
    if args.json:
        merge(args.json, list(records.values()))
    return 0 if same else 1


def timed(policy, seen, steps, count, warm_up=20):
    """Figures of ``count`` chunks, and the actions of the last ones."""
    policy.reseed(0)
    running, latencies, results = deque(), [], []

    def take():
        begin, pending = running.popleft()
        results.append(pending.result())
        latencies.append((time.perf_counter() - begin) * 1e3)

    for i in range(warm_up + count):
        frames = {view: policy.prepare_frame(view, f) for view, f in seen.frames.items()}
        if len(running) == policy.places:
            take()
        if i == warm_up:
            while running:
                take()
            results.clear()
            latencies.clear()
            start = time.perf_counter()
        begin = time.perf_counter()
        running.append((begin, policy.submit(replace(seen, frames=frames), num_steps=steps)))
    while running:
        take()
    seconds = time.perf_counter() - start
    medians = {
        f'{name}_p50_ms': median(getattr(r.times, f'{name}_ms') for r in results)
        for name in STAGES
    }
    p50, p99 = np.percentile(latencies, [50, 99])
    figures = {
        'chunks_per_s': round(count / seconds, 2),
        'latency_p50_ms': round(float(p50), 3),
        'latency_p99_ms': round(float(p99), 3),
        **medians,
        'prompt_tokens': results[-1].prompt_tokens,
    }
    return figures, np.array([r.actions for r in results[-50:]])


def median(values):
    """To a thousandth."""
    return round(float(np.median(list(values))), 3)


def merge(path, records):
    """Into the list at ``path``, in place of those of the same measurement."""
    held = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else []
    new = {tuple(r[k] for k in SAME) for r in records}
    kept = [r for r in held if tuple(r[k] for k in SAME) not in new]
    path.write_text(json.dumps([*kept, *records], indent=1) + '\n', encoding='utf-8')
    print(f'wrote {path}')


if __name__ == '__main__':
    sys.exit(main())
