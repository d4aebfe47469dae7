"""Pi0.5 at true size in one CUDA graph: accuracy and time, bf16 and FP8.

    python benchmarks/h200_pi05.py --json benchmarks/h200-pi05.json

Makes random weights on the GPU, compares actions with the float32 network, calibrates FP8 on 16
observations, judges on 48 others, times graph replays. Needs one GPU of compute capability 9.0
with 40 GB, torch and triton; takes about three minutes.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import triton
from records import merge

from vla_trt_ros.export.pi05.parameters import ModelParameters, load_model
from vla_trt_ros.export.pi05.random_weights import random_model
from vla_trt_ros.policies.pi05.cuda.buffers import make_buffers
from vla_trt_ros.policies.pi05.cuda.fold import fold
from vla_trt_ros.policies.pi05.cuda.graphs import Graphs
from vla_trt_ros.policies.pi05.cuda.operations import TorchOps
from vla_trt_ros.policies.pi05.cuda.quantize import RangeOps, Ranges, quantize, with_unit_scales
from vla_trt_ros.policies.pi05.cuda.stages import Stages
from vla_trt_ros.policies.pi05.cuda.tables import step_tables
from vla_trt_ros.policies.pi05.cuda.triton_ops import TritonOps
from vla_trt_ros.policies.pi05.cuda.tuning import tuning_for
from vla_trt_ros.policies.pi05.spec import PI05

STEPS = (1, 2, 3, 5, 10)
SHAPES = ((3, 200, 50), (2, 48, 10))
CALIBRATE, JUDGE = 16, 48
CLOCK = 'graph replay, CUDA events around each, pixels on the GPU in, actions on the GPU out'


def observations(views, bucket, horizon, count):
    """Random pixels, prompts of 3/4 of the bucket to all of it, noise. Seeded."""
    generator = torch.Generator('cuda').manual_seed(1)
    rng = np.random.default_rng(1)
    found = []
    for _ in range(count):
        coarse = torch.rand(views, 3, 28, 28, generator=generator, device='cuda')
        pixels = torch.nn.functional.interpolate(coarse, size=224, mode='bilinear') * 2 - 1
        length = int(rng.integers(3 * bucket // 4, bucket + 1))
        tokens = torch.randint(PI05.vocab_size, (length,), generator=generator, device='cuda')
        noise = torch.randn(horizon, PI05.action_dim, generator=generator, device='cuda')
        found.append((pixels, tokens, noise))
    return found


def fill(buffers, observation):
    """An observation into the fixed buffers."""
    pixels, tokens, noise = observation
    buffers.pixels.copy_(pixels)
    buffers.tokens.zero_()
    buffers.tokens[: len(tokens)] = tokens
    buffers.valid.fill_(pixels.shape[0] * PI05.tokens_per_view + len(tokens))
    buffers.latents[0, : len(noise)] = noise


def reference(model, observation, steps):
    """Actions of the float32 network."""
    pixels, tokens, noise = observation
    count = pixels.shape[0] * PI05.tokens_per_view + len(tokens)
    mask = torch.ones(1, count, dtype=torch.bool, device='cuda')
    return model.sample_actions(pixels, tokens[None], mask, noise[None], steps)[0]


def cosine(a, b):
    """Of two tensors, in float64."""
    a, b = a.double().flatten(), b.double().flatten()
    return float(a @ b / (a.norm() * b.norm()))


def milliseconds(graph, count, warm_up=20):
    """Times of ``count`` replays back to back."""
    for _ in range(warm_up):
        graph.replay()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    marks[0].record()
    for mark in marks[1:]:
        graph.replay()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in pairwise(marks)]


def check_kernels(weights):
    """Relative error of each fused operation against plain PyTorch, printed."""
    torch.manual_seed(0)
    horizon = weights.config.horizon
    tiles = tuning_for(weights.expert[0].qkv.quantized, horizon)
    fast, plain = TritonOps(tiles, horizon), TorchOps()
    layer, vision, expert = weights.prefix[1], weights.vision[1], weights.expert[1]

    def show(name, a, b):
        a, b = a.float(), b.float()
        print(f'  {name:18} {float((a - b).norm() / b.norm()):.2e}')

    x = torch.randn(976, 2048, device='cuda').bfloat16()
    v = torch.randn(768, 1152, device='cuda').bfloat16()
    v = plain.add_norm(v, None, vision.fc1, True)
    a = fast.add_norm(x.clone(), x, layer.gate_up, False)
    show('add_norm', a, plain.add_norm(x.clone(), x, layer.gate_up, False))
    h = fast.linear(a, layer.gate_up)
    show('linear', h, plain.linear(a, layer.gate_up))
    show('gelu', *(o.gelu_product(v, vision.fc1, vision.fc2) for o in (fast, plain)))
    show('geglu', *(o.geglu_product(a, layer.gate_up, layer.down) for o in (fast, plain)))
    v = torch.randn(768, 1152, device='cuda').bfloat16()
    a = fast.add_norm(v.clone(), None, vision.qkv, True)
    show('layer norm', a, plain.add_norm(v.clone(), None, vision.qkv, True))
    qkv = fast.linear(a, vision.qkv)
    show('linear, bias', qkv, plain.linear(a, vision.qkv))
    a, b = (o.full_attention(qkv, 3, 16, vision.out) for o in (fast, plain))
    show('full attention', a, b)
    b = make_buffers(weights, 3, 200, 1)
    qkv = torch.randn(976, 2560, device='cuda').bfloat16()
    twins = []
    for ops in (fast, plain):
        keys, values = torch.zeros_like(b.keys[0]), torch.zeros_like(b.keys[0])
        q = ops.rotate_store(qkv, b.cos, b.sin, keys, values)
        b.valid.fill_(930)
        twins.append((q, keys, values, ops.prefix_attention(q, keys, values, b.valid, layer.out)))
    for name, i in (('queries', 0), ('keys', 1), ('values', 2), ('prefix attention', 3)):
        show(name, twins[0][i], twins[1][i])
    latent = torch.randn(b.rows, 32, device='cuda')
    factor = 1 + torch.randn(1024, device='cuda') / 4
    gate = torch.rand(1024, device='cuda')
    shift = torch.randn(8192, device='cuda') / 4
    results = []
    for ops in (fast, plain):
        keys, values = twins[1][1].clone(), twins[1][2].clone()
        s = ops.begin(latent, weights.action_in, factor, expert.qkv)
        kept = [s.x[:horizon].clone(), s.scaled[:horizon].clone()]
        q = ops.heads(s, expert.qkv, shift[:2560], b.cos, b.sin, keys, values, b.valid, horizon)
        kept += [q[: horizon * 8].clone(), keys[930 : 930 + horizon], values[930 : 930 + horizon]]
        a = ops.attend(q, keys, values, b.valid, horizon, expert.out)
        kept.append(a[:horizon].clone())
        s = ops.add_product(s, a, expert.out, gate, factor, expert.gate_up)
        kept += [s.x[:horizon].clone(), s.scaled[:horizon].clone()]
        h = ops.gate_up(s, expert.gate_up, shift, expert.down)
        kept.append(h[:horizon].clone())
        s = ops.add_product(s, h, expert.down, gate, factor, weights.action_out)
        kept.append(s.x[:horizon].clone())
        target = torch.zeros_like(latent)
        ops.euler(s, weights.action_out, shift[:32], -0.1, latent, target)
        kept.append(target[:horizon])
        results.append(kept)
    names = [
        'begin',
        'scaled',
        'q',
        'k',
        'v',
        'attend',
        'add',
        'scaled',
        'gate_up',
        'add',
        'euler',
    ]
    for name, mine, theirs in zip(names, *results, strict=True):
        show(name, mine, theirs)


def measure(weights, tables, shape, judged, precision, args, plain):
    """Records of one shape and precision, one per step count."""
    views, bucket, horizon = shape
    weights = replace(weights, config=replace(weights.config, horizon=horizon))
    ops = TritonOps(tuning_for(precision == 'fp8', horizon), horizon)
    stages = Stages(weights, make_buffers(weights, views, bucket, max(STEPS)), ops)
    graphs = Graphs(stages, tables)
    begin = time.monotonic()
    graphs.capture_all((bucket,))
    captured = time.monotonic() - begin
    cosines = []
    for observation, expected in judged:
        fill(stages.buffers, observation)
        cosines.append(cosine(graphs.replay(bucket, 10), expected))
    print(
        f'{precision} {shape}: cosine mean {np.mean(cosines):.6f} worst {min(cosines):.6f} over '
        f'{len(cosines)}; captured in {captured:.1f} s',
        flush=True,
    )
    parts = {
        'vision_ms': graphs.capture(stages.vision),
        'prefix_ms': graphs.capture(lambda: stages.prefix(bucket)),
    }
    times = {name: float(np.median(milliseconds(g, 200))) for name, g in parts.items()}
    records = []
    for steps in STEPS:
        runs = milliseconds(graphs._graphs[bucket, steps], args.replays if steps == 10 else 200)
        step = graphs.capture(lambda: stages.denoise(tables[steps]))  # noqa: B023 - at once
        denoise = float(np.median(milliseconds(step, 200)))
        p50, p99 = np.percentile(runs, [50, 99])
        records.append(
            {
                'hardware': torch.cuda.get_device_name(),
                'backend': 'cuda_graph',
                'precision': precision,
                'views': views,
                'prompt_tokens': bucket,
                'horizon': horizon,
                'steps': steps,
                'e2e_total_ms': round(float(np.median(runs[:200])), 3),
                **{name: round(value, 3) for name, value in times.items()},
                'denoise_ms': round(denoise, 3),
                'per_step_ms': round(denoise / steps, 4),
                'hz': round(1e3 / float(p50), 1),
                'p50_ms': round(float(p50), 3),
                'p99_ms': round(float(p99), 3),
                'n': len(runs),
                'cosine_mean': round(float(np.mean(cosines)), 6),
                'cosine_worst': round(min(cosines), 6),
                'judged': len(cosines),
                'clock': CLOCK,
                'plain_bf16_cosine_mean': plain,
                'weights': f'random, seed 0, sharpness {args.sharpness:g}',
                'software': f'torch {torch.__version__}, CUDA {torch.version.cuda}, '
                f'triton {triton.__version__}',
            }
        )
    return records


def table(records):
    """Latency per step count with shares, and the linear model of denoise time."""
    first = records[0]
    lines = [
        f'{first["precision"]}, {first["views"]} views, {first["prompt_tokens"]} prompt tokens, '
        f'horizon {first["horizon"]}',
        'steps   total ms   p50      p99      Hz     vision          prefix          denoise',
    ]
    for r in records:
        shares = '  '.join(
            f'{r[k]:6.2f} ({100 * r[k] / r["e2e_total_ms"]:4.1f} %)'
            for k in ('vision_ms', 'prefix_ms', 'denoise_ms')
        )
        lines.append(
            f'{r["steps"]:>5}   {r["e2e_total_ms"]:8.3f} {r["p50_ms"]:8.3f} {r["p99_ms"]:8.3f} '
            f'{r["hz"]:6.1f}  {shares}'
        )
    x, y = (np.array([r[k] for r in records], float) for k in ('steps', 'denoise_ms'))
    slope, offset = np.polyfit(x, y, 1)
    worst = np.abs(slope * x + offset - y).max()
    lines.append(
        f'denoise = {slope:.3f} ms x steps + {offset:.3f} ms (largest error {worst:.3f} ms)'
    )
    return '\n'.join(lines)


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--json', default='', metavar='FILE', help='merged into')
    parser.add_argument('--replays', type=int, default=2000, help='for p99, at 10 steps')
    parser.add_argument('--judge', type=int, default=JUDGE)
    parser.add_argument('--sharpness', type=float, default=1.0, help='of random attention')
    parser.add_argument('--kernels', action='store_true', help='check each kernel first')
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        records = run(args)
    print('\n\n'.join(table([r for r in records if key(r) == k]) for k in map(key, records[::5])))
    if args.json:
        merge(args.json, records)


def key(record):
    """What a table holds fixed."""
    return record['precision'], record['views'], record['horizon']


def run(args):
    """Every record."""
    clock = time.monotonic()

    def stamp(text):
        print(f'[{time.monotonic() - clock:6.1f} s] {text}', flush=True)

    model = random_model(PI05, 0, torch.float32, 'cuda', args.sharpness)
    stamp('random network')
    load = dict(model.named_parameters()).__getitem__
    weights = with_unit_scales(fold(PI05, load))
    tables = {steps: step_tables(weights, load, steps) for steps in STEPS}
    stamp('folded')
    if args.kernels:
        check_kernels(weights)
    half = load_model(ModelParameters(model), torch.bfloat16)
    judged, plain = {}, {}
    for shape in SHAPES:
        seen = observations(*shape, CALIBRATE + args.judge)
        judged[shape] = [(o, reference(model, o, 10)) for o in seen]
        control = [cosine(reference(half, o, 10), r) for o, r in judged[shape][:CALIBRATE]]
        plain[shape] = round(float(np.mean(control)), 6)
        print(f'plain bf16 network {shape}: cosine mean {plain[shape]:.6f}')
    del half
    stamp('reference actions')
    records = []
    for shape in SHAPES:
        records += measure(
            weights, tables, shape, judged[shape][CALIBRATE:], 'bf16', args, plain[shape]
        )
    stamp('bf16')
    ranges = Ranges()
    for shape in SHAPES:
        views, bucket, horizon = shape
        config = replace(weights.config, horizon=horizon)
        shaped = replace(weights, config=config)
        buffers = make_buffers(shaped, views, bucket, max(STEPS))
        stages = Stages(
            shaped, buffers, RangeOps(TritonOps(tuning_for(False, horizon), horizon), ranges)
        )
        for observation, _ in judged[shape][:CALIBRATE]:
            fill(buffers, observation)
            stages.vision()
            stages.prefix(bucket)
            stages.denoise(tables[10])
    fast = quantize(weights, ranges)
    stamp('calibrated')
    if args.kernels:
        check_kernels(fast)
    for shape in SHAPES:
        records += measure(
            fast, tables, shape, judged[shape][CALIBRATE:], 'fp8', args, plain[shape]
        )
    stamp(f'fp8; peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB with reference')
    return records


if __name__ == '__main__':
    main()
