"""What a GPU sustains: matrix products of random data by precision, and copies of its memory.

    python benchmarks/gpu_peaks.py benchmarks/gpu-peaks-h200.json

Needs torch with CUDA and nothing of this package. Plans on paper (docs/plan.md) take a device's
peaks from such a file or from its data sheet.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch

SIZE = 8192
RUNS, WARM_UP = 100, 20
CLOCK = f'CUDA events around each call, {RUNS} calls after {WARM_UP} warm-ups, back to back'


def seconds(call: Callable[[], object]) -> dict[str, float]:
    """Median and fastest of ``RUNS`` calls."""
    for _ in range(WARM_UP):
        call()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(RUNS + 1)]
    marks[0].record()
    for mark in marks[1:]:
        call()
        mark.record()
    torch.cuda.synchronize()
    times = [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]
    return {'median': statistics.median(times), 'fastest': min(times)}


def products() -> dict[str, Callable[[], object]]:
    """A product of two ``SIZE`` x ``SIZE`` matrices per precision."""
    a, b = (torch.randn(SIZE, SIZE, device='cuda') for _ in range(2))
    half = a.bfloat16(), b.bfloat16()
    fp8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()
    int8 = (40 * a).clamp(-127, 127).to(torch.int8), (40 * b).clamp(-127, 127).to(torch.int8).t()
    one = torch.ones((), device='cuda')
    return {
        'fp32': lambda: a @ b,
        'half': lambda: half[0] @ half[1],
        'fp8': lambda: torch._scaled_mm(
            *fp8, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
        ),
        'int8': lambda: torch._int_mm(*int8),
    }


def main(path: str) -> None:
    """Measure, print, write."""
    torch.backends.cuda.matmul.allow_tf32 = False
    found: dict[str, object] = {
        'hardware': torch.cuda.get_device_name(),
        'torch': torch.__version__,
        'cuda': torch.version.cuda,
        'product': f'{SIZE} x {SIZE} x {SIZE}, normal random data',
        'clock': CLOCK,
    }
    tflops = {}
    for name, call in products().items():
        try:
            time = seconds(call)
        except (RuntimeError, NotImplementedError) as error:
            print(f'{name}: not on this device: {error}', file=sys.stderr)
            continue
        tflops[name] = {k: round(2 * SIZE**3 / t / 1e12, 1) for k, t in time.items()}
    source = torch.empty(1 << 32, dtype=torch.uint8, device='cuda')
    target = torch.empty_like(source)
    copy = seconds(lambda: target.copy_(source))
    words = source.view(torch.float32)
    words.normal_()
    read = seconds(lambda: words.sum())
    found['tflops'] = tflops
    found['bandwidth_gb_s'] = {
        'copy, read and written': {k: round(2 * source.nbytes / t / 1e9) for k, t in copy.items()},
        'sum of float32, read alone': {k: round(source.nbytes / t / 1e9) for k, t in read.items()},
    }
    text = json.dumps(found, indent=1) + '\n'
    print(text, end='')
    Path(path).write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main(sys.argv[1])
