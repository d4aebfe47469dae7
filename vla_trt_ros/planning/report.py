"""Plans as tables for people and as records for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vla_trt_ros.planning.roofline import Plan

CLOCK = (
    'paper: per stage the larger of FLOP over peak and bytes over bandwidth; launches, '
    'preprocessing and transfers not counted'
)


def table(plan: Plan, source: str = '') -> str:
    """One plan, a line per stage: work, time, and which of the two bounds it. ``source`` says
    where the shares behind its predictions come from.
    """
    predicts = plan.predicted_ms is not None
    peaks = ', '.join(f'{name} {value:g}' for name, value in plan.device.tflops.items())
    lines = [
        f'{plan.device.description}: {peaks} TFLOP/s, {plan.device.bandwidth:g} GB/s '
        f'({plan.device.source})',
        f'{plan.network}: {_shape(plan)}, {plan.steps} steps',
        f'clock: {CLOCK}',
        '',
        'stage    precision  runs    GFLOP   read MB   compute ms  memory ms   floor ms   share  '
        'bound by' + ('   predicted ms' if predicts else ''),
    ]
    for s in plan.stages:
        line = (
            f'{s.stage:<8} {s.precision:<9} {s.runs:>5}  {s.flop / 1e9:>7.1f}  '
            f'{s.read_bytes / 1e6:>8.1f}   {s.compute_ms:>10.2f} {s.memory_ms:>10.2f} '
            f'{s.floor_ms:>10.2f}  {100 * s.floor_ms / plan.floor_ms:>4.1f} %  {s.bound:<8}'
        )
        if s.predicted_ms is not None:
            line += f'   {s.predicted_ms:>12.2f}'
        lines.append(line.rstrip())
    total = f'{"total":<64} {plan.floor_ms:>10.2f}          {1e3 / plan.floor_ms:>6.1f} Hz'
    if plan.predicted_ms is not None:
        total += f'{plan.predicted_ms:>14.2f}, {1e3 / plan.predicted_ms:.1f} Hz'
    memory, held = plan.memory, plan.device.memory
    lines += [
        total,
        '',
        f'memory: weights {memory.weights / 1e6:.1f} MB (token embeddings '
        f'{memory.embeddings / 1e6:.1f}), KV cache {memory.kv_cache / 1e6:.1f}, activations '
        f'{memory.activations / 1e6:.1f}: {memory.total / 1e9:.2f} of {held:g} GB',
        *_closing(predicts, source),
    ]
    return '\n'.join(lines)


def comparison(plans: Sequence[Plan], source: str = '') -> str:
    """Plans of one shape side by side, a line each; precisions are vision/prefix/denoise."""
    first = plans[0]
    predicts = first.predicted_ms is not None
    wide = max(9, *(len(p.precision) for p in plans))
    long = max(8, *(len(p.platform) for p in plans))
    lines = [
        f'{first.network}: {_shape(first)}',
        f'clock: {CLOCK}',
        '',
        f'{"platform":<{long}}  {"precision":<{wide}}  steps  vision ms  prefix ms  denoise ms  '
        'floor ms      Hz  bound by   memory GB' + ('  predicted ms' if predicts else ''),
    ]
    for p in plans:
        vision, prefix, denoise = (s.floor_ms for s in p.stages)
        bound = ' '.join(s.bound[0].upper() for s in p.stages)
        line = (
            f'{p.platform:<{long}}  {p.precision:<{wide}}  {p.steps:>5}  {vision:>9.2f}  '
            f'{prefix:>9.2f}  {denoise:>10.2f}  {p.floor_ms:>8.2f}  {1e3 / p.floor_ms:>6.1f}  '
            f'{bound:<8}  {p.memory.total / 1e9:>9.2f}'
        )
        if p.predicted_ms is not None:
            line += f'  {p.predicted_ms:>12.2f}'
        lines.append(line)
    devices = {p.device.name: p.device for p in plans}
    lines += [
        '',
        'bound by: C compute, M memory; of vision, prefix and denoise',
        *(
            f'{d.description}: {", ".join(f"{k} {v:g}" for k, v in d.tflops.items())} TFLOP/s, '
            f'{d.bandwidth:g} GB/s ({d.source})'
            for d in devices.values()
        ),
        *_closing(predicts, source),
    ]
    return '\n'.join(lines)


def record(plan: Plan) -> dict[str, Any]:
    """A plan for ``--json``: milliseconds, bytes and FLOP. ``predicted_ms`` is null where no
    shares were given.
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
        'stages': {
            s.stage: {
                'precision': s.precision,
                'runs': s.runs,
                'flop': s.flop * s.runs,
                'read_bytes': s.read_bytes * s.runs,
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
    padded = (
        '' if plan.prompt_bucket == plan.prompt_tokens else f', padded to {plan.prompt_bucket}'
    )
    return (
        f'{plan.views} views, {plan.prompt_tokens} prompt tokens{padded} '
        f'(prefix of {plan.prefix_tokens}), horizon {plan.horizon}'
    )


def _closing(predicts: bool, source: str) -> list[str]:
    if not predicts:
        return ['These are floors on paper, not measurements.']
    return [
        'Floors are on paper. Predicted: floor over the measured share of each stage, '
        + (f'from: {source}' if source else 'whose source the file does not name')
    ]


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
