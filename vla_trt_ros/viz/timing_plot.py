"""Where the time of a run's chunks went, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vla_trt_ros.datatypes import NS, Float64Array
from vla_trt_ros.errors import BadInput

STAGES = (
    'preprocess',
    'upload',
    'vision',
    'prefix',
    'denoise',
    'download',
    'postprocess',
    'publish',
    'wait',
)
"""From bottom to top, as a tick passes through them; waiting for its start, which varies most and
costs no work, is drawn above the rest."""

_COLOURS = {
    'wait': '#c9ced6',
    'preprocess': '#e69f00',
    'upload': '#b8860b',
    'vision': '#56b4e9',
    'prefix': '#0072b2',
    'denoise': '#009e73',
    'download': '#999933',
    'postprocess': '#cc79a7',
    'publish': '#882255',
}
_INK, _ACCENT = '#333333', '#d55e00'
_RATE_WINDOW = 1.0  # seconds
_MAX_BARS = 160


@dataclass(frozen=True, slots=True)
class TimingRecord:
    """One chunk. ``time`` is its publish time in seconds of any clock; the rest milliseconds."""

    time: float
    stages_ms: Mapping[str, float]
    """By the names in STAGES; those that are missing count as 0."""
    end_to_end_ms: float
    """Oldest exposure used -> publish."""
    image_age_ms: Mapping[str, float]
    """By camera: exposure -> start of the tick."""


def record_from_msg(msg: Any) -> TimingRecord:
    """vla_trt_ros/PolicyTiming to a record, by field access."""
    return TimingRecord(
        time=msg.header.stamp.sec + msg.header.stamp.nanosec / NS,
        stages_ms={stage: float(getattr(msg, f'{stage}_ms')) for stage in STAGES},
        end_to_end_ms=float(msg.end_to_end_ms),
        image_age_ms=dict(zip(msg.camera_names, map(float, msg.image_age_ms), strict=True)),
    )


def plot_timing(records: Sequence[TimingRecord], path: str | Path, *, title: str) -> Path:
    """Write a PNG of four panels: stages, end-to-end latency, camera ages, chunk rate.

    ``title`` says what was measured on what, such as 'nano, 2 x 112x112, 10 steps, 2-core x86'.
    Axes end a little above the 99th percentile. Returns the path. BadInput with fewer than two
    records.
    """
    if len(records) < 2:
        raise BadInput(f'{len(records)} timing records: a plot needs at least 2 chunks.')
    records = sorted(records, key=lambda r: r.time)
    times = np.array([r.time for r in records])
    times -= times[0]
    figure = Figure(figsize=(12, 8), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True)
    _plot_stages(axes[0, 0], times, records)
    _plot_end_to_end(axes[0, 1], times, records)
    _plot_ages(axes[1, 0], times, records)
    _plot_rate(axes[1, 1], times)
    for axis in axes.flat:
        axis.set_xlim(0.0, times[-1])
        axis.grid(alpha=0.25)
        axis.spines[['top', 'right']].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel('time (s)')
    figure.suptitle(f'{title}\n{len(records)} chunks in {times[-1]:.1f} s', fontsize=12)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _plot_stages(axis: Axes, times: Float64Array, records: Sequence[TimingRecord]) -> None:
    stages = np.array([[r.stages_ms.get(s, 0.0) for s in STAGES] for r in records]).T
    shown = [k for k in range(len(STAGES)) if stages[k].max() > 0.0]
    labels = [f'{STAGES[k]}  {np.median(stages[k]):.1f}' for k in shown]
    # Thousands of one-pixel bars would show nothing: each bar is the mean of a few chunks.
    group = -(-len(times) // _MAX_BARS)
    starts = np.arange(0, len(times), group)
    counts = np.diff(np.append(starts, len(times)))
    bars = np.add.reduceat(stages, starts, axis=1) / counts
    axis.stackplot(
        np.append(times[starts], times[-1]),
        np.append(bars, bars[:, -1:], axis=1)[shown],
        labels=labels,
        colors=[_COLOURS[STAGES[k]] for k in shown],
        step='post',
        linewidth=0,
    )
    axis.set_ylim(0.0, _above(stages.sum(axis=0)))
    axis.set_ylabel('ms')
    axis.set_title('Stages of a chunk' + (f' (means of {group})' if group > 1 else ''))
    handles, names = axis.get_legend_handles_labels()
    axis.legend(
        handles[::-1],
        names[::-1],
        title='median, ms',
        loc='upper right',
        fontsize=8,
        framealpha=0.9,
        ncols=2,
    )


def _plot_end_to_end(axis: Axes, times: Float64Array, records: Sequence[TimingRecord]) -> None:
    values = np.array([r.end_to_end_ms for r in records])
    p50, p99 = np.percentile(values, [50, 99])
    label = f'one chunk (slowest {values.max():.0f} ms)'
    axis.plot(times, values, '.', color=_COLOURS['prefix'], markersize=3, label=label)
    axis.axhline(p50, color=_INK, linewidth=1.2, label=f'p50 {p50:.1f} ms')
    axis.axhline(p99, color=_ACCENT, linewidth=1.2, label=f'p99 {p99:.1f} ms')
    axis.set_ylim(0.0, _above(values))
    axis.set_ylabel('ms')
    axis.set_title('End to end: oldest exposure to published chunk')
    axis.legend(loc='upper right', fontsize=8, framealpha=0.9)


def _plot_ages(axis: Axes, times: Float64Array, records: Sequence[TimingRecord]) -> None:
    cameras = sorted({c for r in records for c in r.image_age_ms})
    colours = [_COLOURS['prefix'], _COLOURS['preprocess'], _COLOURS['denoise']]
    every = [0.0]
    for k, camera in enumerate(cameras):
        ages = np.array([r.image_age_ms.get(camera, np.nan) for r in records])
        median, p99 = np.nanpercentile(ages, [50, 99])
        label = f'{camera}: p50 {median:.1f}, p99 {p99:.1f} ms'
        axis.plot(times, ages, '.', color=colours[k % 3], markersize=3, label=label)
        every.extend(ages[np.isfinite(ages)])
    axis.set_ylim(0.0, _above(np.array(every)))
    axis.set_ylabel('ms')
    axis.set_title('Age of the images when a tick began')
    if cameras:
        axis.legend(loc='upper right', fontsize=8, framealpha=0.9)


def _plot_rate(axis: Axes, times: Float64Array) -> None:
    # Chunks published in the second before each one; earlier there is no whole second to count.
    whole = times >= _RATE_WINDOW
    counts = np.arange(1, len(times) + 1) - np.searchsorted(times, times - _RATE_WINDOW, 'right')
    mean = (len(times) - 1) / max(float(times[-1]), 1e-9)
    if whole.any():
        axis.step(
            times[whole], counts[whole] / _RATE_WINDOW, where='post', color=_COLOURS['denoise']
        )
    axis.axhline(mean, color=_INK, linewidth=1.2, label=f'mean {mean:.1f} Hz')
    axis.set_ylim(0.0, _above(np.append(counts[whole], mean)))
    axis.set_ylabel('chunks per second')
    axis.set_title('Chunk rate over the last second')
    axis.legend(loc='lower right', fontsize=8, framealpha=0.9)


def _above(values: Float64Array) -> float:
    """The top of an axis: room for a legend, but a single slow start does not squash the rest."""
    return max(1.0, 1.4 * float(np.percentile(values, 99)))
