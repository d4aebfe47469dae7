"""Floors of plans as one picture: against the step count, and stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vla_trt_ros.errors import BadInput
from vla_trt_ros.planning.roofline import Plan

_LINES = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#882255', '#999933')
_STAGES = {'vision': '#56b4e9', 'prefix': '#0072b2', 'denoise': '#009e73'}  # as timing_plot's
_INK = '#333333'


def plot_floors(curves: Sequence[Sequence[Plan]], path: Path, *, steps: Sequence[int]) -> Path:
    """Write a PNG. A curve holds the plans of one platform and precision, their steps rising;
    the bars show those of ``steps``. Returns the path. BadInput without a plan.
    """
    if not curves or not all(curves):
        raise BadInput('no plans: a plot needs one at least.')
    first = curves[0][0]
    bars = [p for curve in curves for p in curve if p.steps in steps]
    height = max(5.0, 2.2 + 0.3 * len(bars))
    figure = Figure(figsize=(13, height), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _plot_curves(left, curves)
    _plot_stages(right, bars)
    for axis in (left, right):
        axis.set_axisbelow(True)
        axis.spines[['top', 'right']].set_visible(False)
    figure.suptitle(
        f'Floors on paper, not measurements: {first.network}, {first.views} views, prefix of '
        f'{first.prefix_tokens} tokens, horizon {first.horizon}\n'
        'per stage the larger of FLOP over peak and bytes over bandwidth; launches not counted',
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _plot_curves(axis: Axes, curves: Sequence[Sequence[Plan]]) -> None:
    for k, curve in enumerate(curves):
        colour = _LINES[k % len(_LINES)]
        counts = [p.steps for p in curve]
        floors = [p.floor_ms for p in curve]
        axis.plot(counts, floors, 'o-', color=colour, markersize=4, label=_name(curve[0]))
        predicted = [p.predicted_ms for p in curve if p.predicted_ms is not None]
        if len(predicted) == len(counts):
            label = f'{_name(curve[0])}, predicted'
            axis.plot(counts, predicted, '--', color=colour, label=label)
    axis.set_xlabel('denoise steps')
    axis.set_ylabel('ms')
    axis.set_ylim(bottom=0.0)
    if len(curves[0]) <= 12:
        axis.set_xticks([p.steps for p in curves[0]])
    axis.grid(alpha=0.25)
    axis.set_title('Against the step count')
    axis.legend(fontsize=8, framealpha=0.9)


def _plot_stages(axis: Axes, plans: Sequence[Plan]) -> None:
    rows = range(len(plans))
    starts = [0.0] * len(plans)
    for k, stage in enumerate(plans[0].stages):
        widths = [p.stages[k].floor_ms for p in plans]
        axis.barh(rows, widths, left=starts, color=_STAGES[stage.stage], label=stage.stage)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for row, plan in zip(rows, plans, strict=True):
        axis.text(plan.floor_ms, row, f' {plan.floor_ms:.1f}', va='center', color=_INK, fontsize=8)
    axis.set_yticks(
        rows, [f'{_name(p)}, {p.steps} step{"s"[: p.steps > 1]}' for p in plans], fontsize=8
    )
    axis.invert_yaxis()
    axis.margins(x=0.1)
    axis.grid(alpha=0.25, axis='x')
    axis.set_xlabel('ms')
    axis.set_title('Stage by stage')
    axis.legend(fontsize=8, loc='lower right', framealpha=0.9)


def _name(plan: Plan) -> str:
    return f'{plan.device.name} {plan.precision}'
