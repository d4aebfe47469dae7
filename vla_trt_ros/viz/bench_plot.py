"""Stage times of a benchmark as one picture: stacked per step count, the floor as a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vla_trt_ros.errors import BadInput

_COLOURS = {  # as timing_plot's
    'frames': '#999933',
    'preprocess': '#e69f00',
    'upload': '#b8860b',
    'vision': '#56b4e9',
    'prefix': '#0072b2',
    'denoise': '#009e73',
    'the rest': '#cc79a7',
}
_INK, _OURS, _OTHERS = '#333333', '#0072b2', '#c9ced6'


@dataclass(frozen=True, slots=True)
class Bar:
    """One step count. ``stages_ms``: frames, preprocess, upload, vision, prefix and denoise, those
    that are there; what they leave of ``total_ms`` is drawn as the rest. Milliseconds.
    """

    steps: int
    total_ms: float
    stages_ms: Mapping[str, float]
    floor_ms: float | None = None


def plot_bench(
    bars: Sequence[Bar], others: Sequence[tuple[str, float]], path: Path, *, title: str
) -> Path:
    """Write a PNG. ``others`` are names and totals in milliseconds at the last bar's step count,
    drawn beside its total where there are any. Returns the path. BadInput without a bar.
    """
    if not bars:
        raise BadInput('no step counts: a plot needs one at least.')
    figure = Figure(figsize=(13 if others else 8, 5.5), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if others else 1, squeeze=False)[0]
    _plot_stages(axes[0], bars)
    if others:
        _plot_others(axes[1], bars[-1], others)
    for axis in axes:
        axis.set_axisbelow(True)
        axis.spines[['top', 'right']].set_visible(False)
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _plot_stages(axis: Axes, bars: Sequence[Bar]) -> None:
    places = range(len(bars))
    heights = [0.0] * len(bars)
    stages = [{**b.stages_ms, 'the rest': _rest(b)} for b in bars]
    for name, colour in _COLOURS.items():
        parts = [s.get(name, 0.0) for s in stages]
        if any(parts):
            axis.bar(places, parts, bottom=heights, color=colour, label=name, width=0.7)
            heights = [h + p for h, p in zip(heights, parts, strict=True)]
    for place, b, height in zip(places, bars, heights, strict=True):
        text = f'{b.total_ms:.1f}'
        axis.annotate(text, (place, height), (0, 3), textcoords='offset points', ha='center')
    floors = [(place, b.floor_ms) for place, b in zip(places, bars, strict=True)]
    known = [(place, floor) for place, floor in floors if floor is not None]
    if known:
        label = 'floor of vision, prefix and denoise'
        axis.plot(*zip(*known, strict=True), 'o--', color=_INK, markersize=5, label=label)
    axis.set_xticks(places, [str(b.steps) for b in bars])
    axis.set_xlabel('denoise steps')
    axis.set_ylabel('ms')
    axis.margins(y=0.25)
    axis.grid(alpha=0.25, axis='y')
    axis.set_title('Where the time goes')
    axis.legend(fontsize=8, framealpha=0.9, loc='upper left')


def _plot_others(axis: Axes, ours: Bar, others: Sequence[tuple[str, float]]) -> None:
    rows = [('this bundle', ours.total_ms), *others]
    colours = [_OURS, *[_OTHERS] * len(others)]
    axis.barh(range(len(rows)), [ms for _, ms in rows], color=colours)
    for row, (_, ms) in enumerate(rows):
        text = f' {ms:.1f}' + (f'  ({ms / ours.total_ms:.1f} x)' if row else '')
        axis.text(ms, row, text, va='center', color=_INK, fontsize=9)
    axis.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.25)
    axis.grid(alpha=0.25, axis='x')
    axis.set_xlabel('ms')
    axis.set_title(f'Beside others, {ours.steps} steps, each on its own clock')


def _rest(b: Bar) -> float:
    return max(0.0, b.total_ms - sum(b.stages_ms.values()))
