"""The frames of a setting in one line of numbers: the metrics that gates and tables name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_trt_ros.datatypes import Float64Array
from vla_trt_ros.replay.parts import PartResult

_MEANS = (
    'gripper_agreement',
    'clamp_rate',
    'limit_rate',
    'seam',
    'tip_error',
    'image_age_ms',
    'state_age_ms',
)
_PERCENTILES = (50, 95, 99)
_ALWAYS = (
    'frames',
    'seam_max',
    'jerk',
    'jerk_recorded',
    *(f'inference_p{q}_ms' for q in _PERCENTILES),
    'deadline_miss_rate',
    'stale_rate',
    'mae_all_seed_std',
)
_REAL = (
    *(f'latency_p{q}_ms' for q in _PERCENTILES),
    'mean_latency_ms',
    'max_latency_ms',
    'mean_jitter_ms',
    'max_jitter_ms',
    'std_dev_jitter_ms',
    'mean_frame_rate',
    'num_frames_sent',
    'num_missed_frames',
    'missed_rate',
    'starved_s',
)


@dataclass(frozen=True, slots=True)
class Summary:
    """Metric -> value; a metric that cannot be known of these bags is absent."""

    metrics: dict[str, float]
    counts: dict[str, int]
    """What happened how often: pairs, ticks, refused_STALE_IMAGE, dropped, ..."""


def metric_names(columns: Sequence[str], *, real: bool) -> tuple[str, ...]:
    """What `summarise` may give for frames of ``columns``."""
    return (*filter(_is_mean, columns), *_ALWAYS, *(_REAL if real else ()))


def summarise(parts: Sequence[PartResult], *, real: bool, deadline_ms: float) -> Summary:
    """All parts of one setting: bags and noises together, every frame weighing the same."""
    metrics: dict[str, float] = {'frames': sum(len(p.table.values) for p in parts)}
    columns = parts[0].table.columns
    for name in filter(_is_mean, columns):
        metrics[name] = _mean(_all(parts, name))
    metrics['seam_max'] = _largest(_all(parts, 'seam'))
    for name in ('jerk', 'jerk_recorded'):
        metrics[name] = math.sqrt(_mean(_all(parts, name) ** 2))
    inference = _all(parts, 'inference_ms')
    metrics |= _percentiles('inference', inference)
    if len(inference):
        metrics['deadline_miss_rate'] = float(np.mean(inference > deadline_ms))
    counts: dict[str, int] = {}
    for part in parts:
        for name, number in part.facts['counts'].items():
            counts[name] = counts.get(name, 0) + int(number)
    pairs = counts.get('pairs', 0)
    if pairs:
        refused = sum(n for name, n in counts.items() if name.startswith('refused_'))
        metrics['stale_rate'] = refused / pairs
    if real:
        metrics |= _timing(parts, counts)
    seeds = {p.conditions['seed'] for p in parts}
    if len(seeds) > 1:
        of_seed = [
            _mean(_all([p for p in parts if p.conditions['seed'] == seed], 'mae_all'))
            for seed in sorted(seeds)
        ]
        metrics['mae_all_seed_std'] = float(np.std(of_seed, ddof=1))
    return Summary({n: v for n, v in metrics.items() if math.isfinite(v)}, counts)


def _timing(parts: Sequence[PartResult], counts: dict[str, int]) -> dict[str, float]:
    """Names and formulas of NVIDIA's ros2_benchmark; times of one bag never meet another's."""
    found = _percentiles('latency', _all(parts, 'latency_ms'))
    latency = _all(parts, 'latency_ms')
    if len(latency):
        found['mean_latency_ms'] = float(latency.mean())
        found['max_latency_ms'] = float(latency.max())
    ready = [p.table['t'] * 1e3 + p.table['latency_ms'] for p in parts]
    jitter = np.concatenate([np.abs(np.diff(times, n=2)) for times in ready if len(times) > 2])
    if len(jitter):
        found['mean_jitter_ms'] = float(jitter.mean())
        found['max_jitter_ms'] = float(jitter.max())
        found['std_dev_jitter_ms'] = float(jitter.std())
    span = sum((times[-1] - times[0]) / 1e3 for times in ready if len(times) > 1)
    if span > 0:
        found['mean_frame_rate'] = sum(len(times) for times in ready) / span
    sent = counts.get('frames_sent', 0)
    if sent:
        missed = counts.get('frames_dropped', 0) + counts.get('frames_rejected', 0)
        found |= {
            'num_frames_sent': sent,
            'num_missed_frames': missed,
            'missed_rate': missed / sent,
        }
    found['starved_s'] = float(np.nansum(_all(parts, 'starved_ms'))) / 1e3
    return found


def _is_mean(column: str) -> bool:
    measure = column.partition('.')[0]
    return measure in _MEANS or measure.startswith(('mae_', 'mse_'))


def _percentiles(name: str, values: Float64Array) -> dict[str, float]:
    if not len(values):
        return {}
    found = np.percentile(values, _PERCENTILES)
    return {f'{name}_p{q}_ms': float(v) for q, v in zip(_PERCENTILES, found, strict=True)}


def _all(parts: Sequence[PartResult], column: str) -> Float64Array:
    return np.concatenate([p.table[column] for p in parts])


def _mean(values: Float64Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _largest(values: Float64Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else math.nan
