"""The kernels of our own alone on the card: all denoise steps, and attention of the prefix.

    python benchmarks/h200_kernels.py [--json FILE]

For whoever changes kernels/denoise.cu or kernels/prefix_attention.cu: what docs/performance.md's
tables of versions hold. Each result is compared with plain PyTorch first. Steps: ten in a graph,
the expert at true size, random weights in FP8, a cache filled at random; the lowest mean of three
times 30 replays; the error is large since FP8 rounds the other way here and there, layer after
layer. Attention: 17 launches in a graph, the median of five. Needs one GPU of compute capability
9.0; takes half a minute.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from vla_trt_ros.export.pi05.random_weights import random_model
from vla_trt_ros.policies.pi05.cuda import prefix_attention
from vla_trt_ros.policies.pi05.cuda.buffers import make_buffers
from vla_trt_ros.policies.pi05.cuda.fold import FP8, fold
from vla_trt_ros.policies.pi05.cuda.operations import TorchOps
from vla_trt_ros.policies.pi05.cuda.quantize import RangeOps, Ranges, quantize, with_unit_scales
from vla_trt_ros.policies.pi05.cuda.stages import Stages
from vla_trt_ros.policies.pi05.cuda.tables import step_tables
from vla_trt_ros.policies.pi05.cuda.triton_ops import TritonOps
from vla_trt_ros.policies.pi05.cuda.tuning import tuning_for
from vla_trt_ros.policies.pi05.spec import PI05, PrefixConfig, VisionConfig

STEPS = 10
# The expert at true size; what only fills the cache is small.
CONFIG = replace(
    PI05,
    vocab_size=64,
    vision=VisionConfig(64, 1, 2, 64),
    prefix=PrefixConfig(256, PI05.depth, 8, 1, 256, 256),
)
SHAPES = ((3, 200, 50, 968), (2, 48, 10, 560))
"""Views, prompt bucket, horizon, prefix tokens that count."""
ATTENDED = ((976, 968), (560, 560), (304, 300), (64, 3))
"""Rows of the prefix, and how many count as keys."""
LAUNCHES = 17


def main():
    """Compare, time, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='list of records')
    args = parser.parse_args()
    with torch.no_grad():
        records = [*denoise_steps(), *attention()]
    for record in records:
        print('  '.join(f'{name} {value}' for name, value in record.items()))
    if args.json:
        args.json.write_text(json.dumps(records, indent=1) + '\n', encoding='utf-8')


def denoise_steps():
    """A record a shape: time of a step, and how far one step is from plain PyTorch."""
    model = random_model(CONFIG, seed=0, device='cuda', sharpness=1.0)
    load = {n: p.detach() for n, p in model.named_parameters()}.__getitem__
    weights = with_unit_scales(fold(CONFIG, load))
    tables = {steps: step_tables(weights, load, steps) for steps in (1, 2, STEPS)}
    ranges = Ranges()
    seen = stages(weights, RangeOps(TorchOps(), ranges), *SHAPES[0])
    seen.denoise(tables[2])
    for linear in weights.linears():
        ranges.largest.setdefault(linear.name, 1.0)
    weights = quantize(weights, ranges)
    for shape in SHAPES:
        horizon = shape[2]
        fast = stages(weights, TritonOps(tuning_for(True, horizon), horizon), *shape)
        plain = stages(weights, TorchOps(), *shape).denoise(tables[1])
        error = distance(fast.denoise(tables[1]), plain)
        milliseconds = min(replays(captured(lambda: fast.denoise(tables[STEPS])), 30, 3))  # noqa: B023 - at once
        yield {
            **told('denoise', horizon, shape[3]),
            'per_step_ms': round(milliseconds / STEPS, 4),
            'error': round(error, 4),
        }


def stages(weights, ops, views, bucket, horizon, valid):
    """Stages over a cache of random numbers."""
    weights = replace(weights, config=replace(weights.config, horizon=horizon))
    buffers = make_buffers(weights, views, bucket, STEPS)
    generator = torch.Generator('cuda').manual_seed(0)
    for cache in (buffers.keys, buffers.values):
        cache.copy_(torch.randn(cache.shape, generator=generator, device='cuda'))
    buffers.valid.fill_(valid)
    noise = torch.randn(horizon, CONFIG.action_dim, generator=generator, device='cuda')
    buffers.latents[0, :horizon] = noise
    return Stages(weights, buffers, ops)


def attention():
    """A record a shape and dtype of the result: time of a launch, and the error."""
    torch.manual_seed(0)
    for rows, valid in ATTENDED:
        q = 2 * torch.randn(rows * 8, 256, device='cuda').bfloat16()
        keys, values = (torch.randn(rows + 64, 256, device='cuda').bfloat16() for _ in range(2))
        count = torch.tensor([valid], dtype=torch.int32, device='cuda')
        logits = q.float() @ keys[:valid].float().t() / 16
        expected = logits.softmax(1) @ values[:valid].float()
        for dtype in (torch.bfloat16, FP8):
            out = torch.empty(rows, 2048, device='cuda', dtype=dtype)

            def launch(q=q, keys=keys, values=values, count=count, out=out):
                for _ in range(LAUNCHES):
                    prefix_attention.attend(q, keys, values, count, out, 1.0)

            times = sorted(replays(captured(launch), 1, 5))
            yield {
                **told('prefix attention', rows, valid),
                'result': str(dtype).removeprefix('torch.'),
                'us': round(times[2] * 1e3 / LAUNCHES, 2),
                'error': round(distance(out.view(-1, 256), expected), 4),
            }


def told(kernel, rows, keys):
    """What every record says."""
    return {
        'hardware': torch.cuda.get_device_name(),
        'kernel': kernel,
        'rows': rows,
        'keys': keys,
    }


def captured(work):
    """``work`` as a graph, after a run that compiles its kernels."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def replays(graph, count, rounds):
    """Mean milliseconds of ``count`` replays, ``rounds`` times."""
    means = []
    for _ in range(rounds):
        for _ in range(3):
            graph.replay()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        means.append(begin.elapsed_time(end) / count)
    return means


def distance(found, expected):
    """Relative to the norm of ``expected``."""
    found, expected = found.float(), expected.float()
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))


if __name__ == '__main__':
    main()
