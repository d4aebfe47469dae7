"""Plans as tables for people and as records for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from vla_trt_ros.planning.devices import Device
from vla_trt_ros.planning.roofline import Plan
from vla_trt_ros.tables import grid

CLOCK = (
    'paper: per stage the larger of FLOP over peak and bytes over bandwidth; launches, '
    'preprocessing and transfers not counted'
)


def table(plan: Plan) -> str:
    """One plan, a line per stage: work, time, and which of the two bounds it."""
    rows = [['stage', 'precision', 'engine MB', 'runs', 'GFLOP', 'read MB', 'compute ms']]
    rows[0] += ['memory ms', 'floor ms', 'share', 'bound by']
    for s in plan.stages:
        rows.append([s.stage, s.precision, f'{s.engine_bytes / 1e6:.1f}', f'{s.runs}'])
        rows[-1] += [f'{s.flop / 1e9:.1f}', f'{s.read_bytes / 1e6:.1f}', f'{s.compute_ms:.2f}']
        rows[-1] += [f'{s.memory_ms:.2f}', f'{s.floor_ms:.2f}']
        rows[-1] += [f'{100 * s.floor_ms / plan.floor_ms:.1f} %', s.bound]
    rows.append(['total', *[''] * 7, f'{plan.floor_ms:.2f}', '', f'{1e3 / plan.floor_ms:.1f} Hz'])
    if plan.predicted_ms is not None:
        values = [s.predicted_ms or 0.0 for s in plan.stages]
        words = ['predicted ms', *(f'{v:.2f}' for v in (*values, plan.predicted_ms))]
        rows = [[*row, word] for row, word in zip(rows, words, strict=True)]
    memory = plan.memory
    return '\n'.join(
        [
            _describe(plan.device),
            f'{plan.network}: {_shape(plan)}, {plan.steps} steps',
            f'clock: {CLOCK}',
            '',
            *grid(rows),
            '',
            f'GFLOP and read MB of one run; memory: weights {memory.weights / 1e6:.1f} MB (token '
            f'embeddings {memory.embeddings / 1e6:.1f}), KV cache {memory.kv_cache / 1e6:.1f}, '
            f'activations {memory.activations / 1e6:.1f}: {memory.total / 1e9:.2f} of '
            f'{plan.device.memory:g} GB',
            _closing(plan),
        ]
    )


def comparison(plans: Sequence[Plan]) -> str:
    """Plans of one shape side by side, a line each; precisions are vision/prefix/denoise."""
    rows = [['platform', 'precision', 'steps', 'vision ms', 'prefix ms', 'denoise ms']]
    rows[0] += ['floor ms', 'Hz', 'bound by', 'memory GB']
    for p in plans:
        rows.append([p.platform, p.precision, f'{p.steps}'])
        rows[-1] += [f'{s.floor_ms:.2f}' for s in p.stages]
        rows[-1] += [f'{p.floor_ms:.2f}', f'{1e3 / p.floor_ms:.1f}']
        rows[-1] += [' '.join(s.bound[0] for s in p.stages), f'{p.memory.total / 1e9:.2f}']
    if all(p.predicted_ms is not None for p in plans):
        words = ['predicted ms', *(f'{p.predicted_ms:.2f}' for p in plans)]
        rows = [[*row, word] for row, word in zip(rows, words, strict=True)]
    return '\n'.join(
        [
            f'{plans[0].network}: {_shape(plans[0])}',
            f'clock: {CLOCK}',
            '',
            *grid(rows),
            '',
            'bound by c(ompute) or m(emory): vision, prefix, denoise',
            *dict.fromkeys(_describe(p.device) for p in plans),
            _closing(plans[0]),
        ]
    )


def record(plan: Plan) -> dict[str, Any]:
    """A plan for ``--json``: milliseconds, bytes and FLOP. ``predicted_ms`` is null where no
    shares were given; ``efficiency`` is what a file of shares holds.
    """
    memory = plan.memory
    return {
        'platform': plan.platform,
        'device': plan.device.name,
        'hardware': plan.device.description,
        'peaks': {
            'tflops': dict(plan.device.tflops),
            'bandwidth_gb_s': plan.device.bandwidth,
            'source': plan.device.source,
        },
        'network': plan.network,
        'precision': plan.precision,
        'views': plan.views,
        'prompt_tokens': plan.prompt_tokens,
        'prompt_bucket': plan.prompt_bucket,
        'prefix_tokens': plan.prefix_tokens,
        'horizon': plan.horizon,
        'steps': plan.steps,
        'clock': CLOCK,
        'floor_ms': _ms(plan.floor_ms),
        'floor_hz': round(1e3 / plan.floor_ms, 2),
        'predicted_ms': _ms(plan.predicted_ms),
        'efficiency': None if plan.efficiency is None else asdict(plan.efficiency),
        'stages': {
            s.stage: {
                'precision': s.precision,
                'runs': s.runs,
                'flop': s.flop * s.runs,
                'read_bytes': s.read_bytes * s.runs,
                'engine_bytes': s.engine_bytes,
                'compute_ms': _ms(s.compute_ms),
                'memory_ms': _ms(s.memory_ms),
                'floor_ms': _ms(s.floor_ms),
                'bound': s.bound,
                'predicted_ms': _ms(s.predicted_ms),
            }
            for s in plan.stages
        },
        'memory_bytes': {
            'weights': memory.weights,
            'embeddings': memory.embeddings,
            'kv_cache': memory.kv_cache,
            'activations': memory.activations,
            'total': memory.total,
            'device': round(plan.device.memory * 1e9),
        },
    }


def _shape(plan: Plan) -> str:
    bucket = plan.prompt_bucket
    padded = '' if bucket == plan.prompt_tokens else f', padded to {bucket}'
    return (
        f'{plan.views} views, {plan.prompt_tokens} prompt tokens{padded} '
        f'(prefix of {plan.prefix_tokens}), horizon {plan.horizon}'
    )


def _describe(device: Device) -> str:
    peaks = ', '.join(f'{name} {value:g}' for name, value in device.tflops.items())
    return f'{device.description}: {peaks} TFLOP/s, {device.bandwidth:g} GB/s; {device.source}'


def _closing(plan: Plan) -> str:
    shares = plan.efficiency
    if shares is None:
        return 'These are floors on paper, not measurements.'
    each = ', '.join(f'{s.stage} {shares.share(s.stage):.3f}' for s in plan.stages)
    return (
        f'Floors are on paper. Predicted: floor over the measured share of each stage ({each}; '
        + (f'from: {shares.source})' if shares.source else 'the file does not say of what)')
    )


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
