"""Benchmark records as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vla_trt_ros.cli.bench_record import OtherRecord, Record
from vla_trt_ros.config import STAGES
from vla_trt_ros.tables import grid


def report(
    records: Sequence[Record],
    runtimes: Mapping[str, str],
    baseline: Sequence[Record] = (),
    others: Sequence[OtherRecord] = (),
) -> str:
    """All tables there is something to say in. ``runtimes``: stage to what runs it."""
    parts = [heading(records, runtimes), latency(records)]
    if len(records) > 1:
        parts.append(step_model(records))
    if records[0].floor_ms is not None:
        parts.append(floors(records))
    parts += [
        against(records, [r for r in baseline if r.implementation == name])
        for name in dict.fromkeys(r.implementation for r in baseline)
    ]
    if others:
        parts.append(beside(records, others))
    return '\n\n'.join(parts)


def heading(records: Sequence[Record], runtimes: Mapping[str, str]) -> str:
    """What was measured on what, and what the clocks cover."""
    r = records[0]
    machine = r.hardware
    if r.host not in ('', r.hardware):
        machine += f', beside {r.host}'
    if r.gpu_memory_mib:
        machine += f'; {max(x.gpu_memory_mib for x in records):.0f} MiB of GPU memory in use'
    if r.uploads:
        machine += f', {r.uploads} uploads of {r.upload_bytes / 1e6:.2f} MB in all a run'
    padded = f' in the engine of {r.prompt_bucket}' if r.prompt_bucket != r.prompt_tokens else ''
    return '\n'.join(
        [
            machine,
            f'bundle {r.bundle}, {r.views} views of {r.camera}, {r.prompt_tokens} prompt tokens'
            f'{padded}, horizon {r.horizon}, n = {r.n}',
            ', '.join(f'{stage}: {what}' for stage, what in runtimes.items()),
            f'clock: {r.clock}',
            *([f'uploaded: {r.uploaded_clock}'] if r.uploaded_clock else []),
            f'stages: {r.stage_clock}',
        ]
    )


def latency(records: Sequence[Record]) -> str:
    """Latency per step count with each stage's share."""
    uploaded = any(r.uploaded_total_ms is not None for r in records)
    rows = [['steps', 'total ms', 'p99 ms', 'p99/p50', 'Hz']]
    rows[0] += ['uploaded ms', 'its p99'] if uploaded else []
    rows[0] += ['frames', 'preprocess', 'upload', 'vision', 'prefix (KV)', 'denoise', 'the rest']
    for r in records:
        before = r.frames_ms + r.preprocess_ms + r.upload_ms
        rest = r.e2e_total_ms - before - r.vision_ms - r.prefix_ms - r.denoise_ms
        rows.append([f'{r.steps}', f'{r.e2e_total_ms:.2f}', f'{r.p99_ms:.2f}'])
        rows[-1] += [f'{r.p99_ms / r.p50_ms:.3f}', f'{r.hz:.1f}']
        if uploaded:
            both = (r.uploaded_total_ms, r.uploaded_p99_ms)
            rows[-1] += ['' if ms is None else f'{ms:.2f}' for ms in both]
        rows[-1] += [f'{ms:.2f}' for ms in (r.frames_ms, r.preprocess_ms, r.upload_ms)]
        rows[-1] += [
            f'{value:.2f} ({100 * value / r.e2e_total_ms:4.1f} %)'
            for value in (r.vision_ms, r.prefix_ms, r.denoise_ms)
        ]
        # Medians of parts do not add up to the median of the whole: the rest may fall below 0.
        rows[-1].append(f'{max(rest, 0.0):.2f}')
    return '\n'.join(grid(rows))


def step_model(records: Sequence[Record]) -> str:
    """Denoise time as a line through the step counts, and how far off it is at each."""
    x = np.array([r.steps for r in records], np.float64)
    y = np.array([r.denoise_ms for r in records], np.float64)
    slope, offset = np.polyfit(x, y, 1)
    predicted = slope * x + offset
    worst = np.abs(predicted - y).max()
    rows = [['steps', 'predicted ms', 'measured ms', 'error']]
    for steps, said, found in zip(x, predicted, y, strict=True):
        off = round(100 * (found - said) / found, 1) + 0.0 if found else 0.0  # no -0.0
        rows.append([f'{steps:.0f}', f'{said:.2f}', f'{found:.2f}', f'{off:+.1f} %'])
    line = f'denoise = {slope:.3f} ms x steps + {offset:.3f} ms (largest error {worst:.3f} ms)'
    return '\n'.join([line, *grid(rows)])


def floors(records: Sequence[Record]) -> str:
    """Time of the three stages over their floor on paper."""
    rows = [['steps', 'engines ms', 'floor ms', 'engines', *STAGES]]
    for r in records:
        if r.floor_ms is not None:
            over = [r.over_floor(), *(r.over_floor(stage) for stage in STAGES)]
            rows.append([f'{r.steps}', f'{r.engines_ms:.2f}', f'{r.floor_ms:.2f}'])
            rows[-1] += [f'{value:.1f} x' for value in over if value is not None]
    return '\n'.join(
        [
            f'over the floor of {records[0].floor_device}: per stage the larger of FLOP over peak '
            'and bytes over bandwidth',
            *grid(rows),
        ]
    )


def against(records: Sequence[Record], baseline: Sequence[Record]) -> str:
    """Speed-up over a baseline, in all and per stage."""
    first = baseline[0]
    memory = f', {first.gpu_memory_mib:.0f} MiB' if first.gpu_memory_mib else ''
    rows = [['steps', 'baseline ms', 'ours ms', 'speed-up', *STAGES]]
    by_steps = {r.steps: r for r in records}
    for b in baseline:
        r = by_steps[b.steps]
        rows.append([f'{b.steps}', f'{b.e2e_total_ms:.2f}', f'{r.e2e_total_ms:.2f}'])
        rows[-1].append(f'{b.e2e_total_ms / r.e2e_total_ms:.2f} x')
        for stage in STAGES:
            theirs, ours = (getattr(x, f'{stage}_ms') for x in (b, r))
            ratio = f', {theirs / ours:.2f} x' if ours else ''
            rows[-1].append(f'{theirs:.2f} -> {ours:.2f}{ratio}')
    return '\n'.join(
        [
            f'against {first.implementation}: {first.precision}, n = {first.n}{memory}; '
            f'{first.clock}',
            *grid(rows),
        ]
    )


def beside(records: Sequence[Record], others: Sequence[OtherRecord]) -> str:
    """Records of other files; a ratio to ours where shape and step count are the same."""
    rows = [['implementation', 'hardware', 'precision', 'views', 'prompt', 'horizon', 'steps']]
    rows[0] += ['total ms', *STAGES, 'over ours']
    for o in others:
        rows.append([o.implementation, o.hardware, o.precision, f'{o.views}'])
        rows[-1] += [f'{o.prompt_tokens}', f'{o.horizon}', f'{o.steps}', f'{o.e2e_total_ms:.2f}']
        times = (o.vision_ms, o.prefix_ms, o.denoise_ms)
        rows[-1] += ['' if t is None else f'{t:.2f}' for t in times]
        twin = next((r for r in records if o.same_work(r)), None)
        rows[-1].append('' if twin is None else f'{o.e2e_total_ms / twin.e2e_total_ms:.2f} x')
    clocks = dict.fromkeys(f'{o.implementation}: {o.clock}' for o in others)
    return '\n'.join(['beside:', *grid(rows), *clocks])
