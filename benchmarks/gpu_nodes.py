"""The figures of the policy node on this GPU, over DDS between processes: twin of cpu_nodes.py.

    python benchmarks/gpu_nodes.py [--precision fp8] [--json benchmarks/h200-nodes.json]
    python benchmarks/gpu_nodes.py --overlap [--rate 120] [--precision bf16]

Two 640x480 cameras at 30 Hz and joint states at 100 Hz come from one process, the policy runs in
another with a network of true size, random weights, in hand-tuned stages (made first, unless
--bundle names one). It is started twice: what the first start compiled, the second one finds. The
figures are the second one's. Run it on an idle machine: every figure is a wall-clock one.

--overlap asks something else, and adds a record to the list of that name in the file: how many
chunks a second there are with cameras that are faster than the policy, chunk after chunk and
overlapping.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
from cpu_nodes import RATE, SETTLE, node, percentile, rate, report, rounded, silent

from vla_trt_ros.bringup import transport_environment
from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.cli.checks import compute_capability, nvidia_smi
from vla_trt_ros.config import share_dir
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.msg import PolicyTiming
from vla_trt_ros.nodes.monitor import Monitor

FRAME_BYTES = 640 * 480 * 3
PLATFORM = """name: here
description: this machine, every stage hand-tuned
target: {target}
vision: {{backend: cuda_graph, precision: {precision}}}
prefix: {{backend: cuda_graph, precision: {precision}}}
denoise: {{backend: cuda_graph, precision: {precision}}}
"""
POLICY = """family: pi05
bundle: {bundle}
prompt: reach the goal
max_rate: {rate}
"""
GOALS = {
    'chunks_per_pair': ('>=', 1.0),
    'chunks_per_s': ('>=', 29.9),
    'overhead_p99_ms': ('<=', 8.0),
    'frame_copies_per_frame': ('<=', 1.0),
    'gpu_memory_growth_mib': ('<=', 0.0),
    'second_start_s': ('<=', 30.0),
    'unclean_ends': ('<=', 0.0),
}
CLOCK = {
    'chunks_per_pair': 'chunks published / pairs of frames published in the timed window',
    'chunks_per_s': 'chunks published / seconds',
    'overhead_p99_ms': 'stamp of the pair, set before the first of both is published -> chunk '
    'published, less vision, prefix and denoise by CUDA events',
    'transport_p99_ms': 'the same stamp -> callback of the policy node; ROS clock',
    'upload_p50_ms': 'by CUDA events: wait for the frames, and the kernel that writes the input; '
    'prompt, mask and noise are copied beside vision',
    'frame_copies_per_frame': 'host-to-device copies of a chunk, less those of prompt, mask and '
    'noise, by the number of cameras',
    'gpu_memory_mib': 'in use on the GPU, everything on it counted; growth over the window',
    'first_start_s': 'process started -> first chunk heard; nothing of the kernels on disk',
    'second_start_s': 'the same once more',
    'unclean_ends': 'policy nodes of both starts that SIGINT did not end with status 0',
}
OVERLAP_CLOCK = {
    'chunks_per_s': 'chunks published / seconds',
    'pairs_per_s': 'frames of the first camera that reached the policy node / seconds',
    'end_to_end_p50_ms': 'stamp of the pair -> chunk published',
    'vision_p50_ms': 'and prefix, denoise: CUDA events, what another chunk took away included',
}
OVERLAP_FIGURES = ('timed_chunks', 'chunks_per_s', 'pairs_per_s', 'inference_p50_ms')
OVERLAP_FIGURES += ('end_to_end_p50_ms', 'end_to_end_p99_ms', 'wait_p50_ms', 'upload_p50_ms')
OVERLAP_FIGURES += ('vision_p50_ms', 'prefix_p50_ms', 'denoise_p50_ms', 'gpu_memory_mib')
STAGES = ('wait', 'preprocess', 'upload', 'vision', 'prefix', 'denoise', 'download')
STAGES += ('postprocess', 'publish')
SMALL_INPUTS = 3
"""Prompt, mask and noise: host-to-device copies of a chunk that are not frames."""


def main() -> int:
    """Status 0 where every goal is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--json', default='benchmarks/h200-nodes.json', metavar='FILE')
    parser.add_argument('--precision', default='fp8', help='of every stage: bf16 or fp8')
    parser.add_argument('--bundle', default='', help='of two views; default: made of a seed')
    parser.add_argument('--steps', type=int, default=10, help='denoise steps')
    parser.add_argument('--seconds', type=float, default=30.0, help='of the timed window')
    parser.add_argument('--overlap', action='store_true', help='chunks a second without and with')
    parser.add_argument('--rate', type=float, default=RATE, help='of each camera, Hz (30)')
    args = parser.parse_args()
    if args.overlap and args.rate == RATE:
        args.rate = 120.0
    os.environ.update(transport_environment(os.environ))
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(args.bundle or make_bundle(Path(folder), args.precision))
        platform = Path(folder) / 'here.yaml'
        text = PLATFORM.format(target=compute_capability(), precision=args.precision)
        platform.write_text(text, encoding='utf-8')
        parameters = {'bundle': bundle, 'platform': platform, 'num_steps': args.steps}
        os.environ['XDG_CACHE_HOME'] = str(Path(folder) / 'cache')
        os.environ['TRITON_CACHE_DIR'] = str(Path(folder) / 'triton')
        if args.overlap:
            policy = Path(folder) / 'quick.yaml'
            policy.write_text(POLICY.format(bundle=bundle, rate=2 * args.rate), encoding='utf-8')
            return measure_overlap(args, {**parameters, 'policy': policy})
        first = one_run(parameters, 1.0, args.rate)
        second = one_run(parameters, args.seconds, args.rate)
        config = open_bundle(bundle).config
    record = {
        **machine(),
        'setting': f'two 640x480 rgb8 cameras at {args.rate:g} Hz, joint states at 100 Hz, true '
        'size, random weights, one process each for cameras and policy',
        'precision': args.precision,
        'steps': args.steps,
        **{name: config[name] for name in ('views', 'horizon', 'prompt_buckets', 'num_steps')},
        'clock': CLOCK,
        'first_start_s': first['start_s'],
        'second_start_s': second.pop('start_s'),
        'unclean_ends': sum(run.pop('exit_status') != 0 for run in (first, second)),
        **second,
    }
    missed = report(record, GOALS)
    held = read(args.json)
    write(args.json, record | {k: held[k] for k in ('overlap',) if k in held})
    return 1 if missed else 0


def measure_overlap(args: argparse.Namespace, parameters: dict[str, object]) -> int:
    """Time chunk after chunk, then overlapping ones; one record of both, merged."""
    one_run(parameters, 1.0, args.rate, counted=False)  # compiles what both then find
    record: dict[str, object] = {
        'hardware': nvidia_smi('name,driver_version'),
        'host': cpu_name(),
        'precision': args.precision,
        'steps': args.steps,
        'camera_rate_hz': args.rate,
        'seconds': args.seconds,
        'clock': OVERLAP_CLOCK,
    }
    for name, overlap in (('off', False), ('on', True)):
        how = {**parameters, 'overlap': str(overlap).lower()}
        found = one_run(how, args.seconds, args.rate, counted=False)
        record[name] = {k: found[k] for k in ('log', 'exit_status', *OVERLAP_FIGURES)}
        print(
            f'overlap {name}: {found["chunks_per_s"]} chunks/s, {found["pairs_per_s"]} pairs/s, '
            f'end to end {found["end_to_end_p50_ms"]} ms'
        )
    write(args.json, with_overlap(read(args.json), record))
    return 0


def with_overlap(held: dict[str, object], record: dict[str, object]) -> dict[str, object]:
    """``held`` with ``record`` in its list, in place of one of the same measurement."""
    same = ('hardware', 'precision', 'steps', 'camera_rate_hz')
    rest = [r for r in held.get('overlap', []) if any(r[k] != record[k] for k in same)]
    return held | {'overlap': [*rest, record]}


def read(path: str) -> dict[str, object]:
    """What the file holds; nothing where there is none."""
    return json.loads(Path(path).read_text(encoding='utf-8')) if Path(path).is_file() else {}


def write(path: str, record: dict[str, object]) -> None:
    """The whole file anew."""
    Path(path).write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
    print(f'wrote {path}')


def machine() -> dict[str, str]:
    """What every record says of where it was made."""
    return {
        'hardware': nvidia_smi('name,driver_version'),
        'host': cpu_name(),
        'python': sys.version.split()[0],
        'torch': version('torch'),
    }


def make_bundle(folder: Path, precision: str) -> Path:
    """A bundle of two views and the horizon of the base model, drawn on the GPU."""
    out = folder / 'random'
    words = [sys.executable, '-m', 'vla_trt_ros.cli.main', 'export', '--random-weights', '0']
    words += ['--size', 'pi05', '--backend', 'cuda_graph', '--precision', precision]
    words += ['--device', 'cuda', '--robot', 'metaworld', '--horizon', '50', '--out', str(out)]
    # Any vocabulary does; making one takes longer than taking nano's.
    words += ['--tokenizer', str(share_dir() / 'bundles' / 'nano' / 'tokenizer.model')]
    begin = time.monotonic()
    subprocess.run(words, check=True)
    print(f'bundle made in {time.monotonic() - begin:.0f} s')
    return out


def one_run(
    parameters: dict[str, object], seconds: float, camera_rate: float, *, counted: bool = True
) -> dict[str, object]:
    """Start cameras and policy, time ``seconds`` of it, end both. ``counted``: the cameras fall
    silent by themselves, before the policy ends.
    """
    frames = int(camera_rate * (2 * SETTLE + seconds)) if counted else 0
    with tempfile.TemporaryFile() as log:
        with contextlib.ExitStack() as stack:
            monitor = stack.enter_context(Monitor())
            begin = time.monotonic()
            policy = stack.enter_context(node('policy_node', log, **parameters))
            stack.enter_context(node('pattern_node', rate=camera_rate, frames=frames))
            ended = lambda: bool(monitor.timings) or policy.poll() is not None  # noqa: E731
            if not monitor.wait_for(ended, 240) or not monitor.timings:
                raise SystemExit(f'no chunk within 240 s:\n{tail(log)}')
            start = time.monotonic() - begin
            time.sleep(SETTLE + seconds)
            if counted:
                monitor.wait_for(lambda: silent(monitor), 2 * SETTLE + 60)
        said = tail(log)
    if policy.returncode:
        print(f'policy node ended with status {policy.returncode}:\n{said}', file=sys.stderr)
    heard = [t for arrived, t in monitor.timings if arrived > begin + start + SETTLE]
    window = [t for t in heard if _ms(t) < _ms(heard[0]) + 1e3 * seconds]
    return {
        'start_s': rounded(start),
        'log': re.findall(r'\d+ of \d+ CUDA graphs captured, .*|loaded and warm in .* s', said),
        **figures(window, camera_rate),
        'exit_status': policy.returncode,
    }


def figures(timings: list[PolicyTiming], camera_rate: float) -> dict[str, object]:
    """What the messages of the window say."""
    if len(timings) < 3:
        raise SystemExit(f'{len(timings)} chunks heard in the window: too few to tell.')
    first, last = timings[0], timings[-1]
    cameras = len(first.camera_names)
    # A frame that the node did not hear or did not use is a pair without a chunk.
    pairs = round((stamp_ms(last) - stamp_ms(first)) * camera_rate / 1e3)
    arrived = last.frames_received[0] - first.frames_received[0]
    memory = [t.device_memory_mib for t in timings]
    uploads = np.array([t.uploads for t in timings])
    overhead = overhead_ms(timings)
    stages = {
        f'{name}_p50_ms': percentile([getattr(t, f'{name}_ms') for t in timings], 50)
        for name in STAGES
    }
    return {
        'timed_chunks': len(timings),
        'chunks_per_pair': rounded((last.chunk_id - first.chunk_id) / pairs),
        'chunks_per_s': rounded(rate(timings)),
        'pairs_per_s': rounded(arrived * 1e3 / (_ms(last) - _ms(first))),
        'frames_dropped': list(last.frames_dropped),
        'frames_rejected': list(last.frames_rejected),
        'transport_p50_ms': percentile([t.transport_ms for t in timings], 50),
        'transport_p99_ms': percentile([t.transport_ms for t in timings], 99),
        'overhead_p50_ms': percentile(overhead, 50),
        'overhead_p99_ms': percentile(overhead, 99),
        'overhead_max_ms': percentile(overhead, 100),
        **stages,
        'inference_p50_ms': percentile([t.inference_ms for t in timings], 50),
        'engine_p50_ms': percentile([t.engine_ms for t in timings], 50),
        'engine_p99_ms': percentile([t.engine_ms for t in timings], 99),
        'end_to_end_p50_ms': percentile([t.end_to_end_ms for t in timings], 50),
        'end_to_end_p99_ms': percentile([t.end_to_end_ms for t in timings], 99),
        'uploads_per_chunk': [int(uploads.min()), int(uploads.max())],
        'upload_bytes_per_chunk': int(np.median([t.upload_bytes for t in timings])),
        'frame_bytes': FRAME_BYTES,
        'frame_copies_per_frame': rounded(float((uploads.max() - SMALL_INPUTS) / cameras)),
        'gpu_memory_mib': rounded(memory[-1]),
        'gpu_memory_growth_mib': rounded(max(memory) - memory[0]),
    }


def overhead_ms(timings: list[PolicyTiming]) -> np.ndarray:
    """Per chunk: from the exposure of its frames to the chunk published, less the engines."""
    return np.array(
        [t.end_to_end_ms - t.engine_ms + after.publish_ms for t, after in pairwise(timings)]
    )


def stamp_ms(timing: PolicyTiming) -> float:
    """When the frames of a chunk were exposed."""
    return _ms(timing) - timing.end_to_end_ms


def _ms(timing: PolicyTiming) -> float:
    stamp = timing.header.stamp
    return stamp.sec * 1e3 + stamp.nanosec / 1e6


def tail(log: IO[bytes]) -> str:
    """What a node said."""
    log.seek(0)
    return log.read().decode(errors='replace')[-8000:]


if __name__ == '__main__':
    sys.exit(main())
