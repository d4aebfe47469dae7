"""Success against the step count: a panel for the mean, one for each task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vla_trt_ros.errors import BadInput

_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#882255')
_STYLES = {'canonical': 'o-', 'varied': 's--', 'shuffled': 'x:'}
_COLUMNS = 4


class SuccessPoint(Protocol):
    """What is drawn of a record; task 'mean' stands for all of them."""

    @property
    def task(self) -> str:
        """Names the panel."""
        ...

    @property
    def steps(self) -> int:
        """Denoise steps."""
        ...

    @property
    def precision(self) -> str:
        """With ``prompts``, names the line."""
        ...

    @property
    def prompts(self) -> str:
        """canonical, varied or shuffled."""
        ...

    @property
    def success_rate(self) -> float:
        """0 to 1."""
        ...

    @property
    def interval95(self) -> tuple[float, float]:
        """Around the rate, 0 to 1."""
        ...


def plot_success(points: Sequence[SuccessPoint], path: Path, *, title: str) -> Path:
    """Write a PNG: a panel per task in the order of ``points``, a line per precision and way of
    prompting, its 95 % interval as a band. Returns the path. BadInput without points.
    """
    if not points:
        raise BadInput('no results: a plot needs one at least.')
    tasks = list(dict.fromkeys(p.task for p in points))
    lines = list(dict.fromkeys((p.precision, p.prompts) for p in points))
    steps = sorted({p.steps for p in points})
    columns = min(_COLUMNS, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(3.2 * columns + 1, 2.7 * rows + 1.2), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for task, axis in zip(tasks, grid.flat, strict=False):
        _panel(axis, [p for p in points if p.task == task], lines, steps)
        axis.set_title(task, fontsize=10, fontweight='bold' if task == 'mean' else 'normal')
    for axis in list(grid.flat)[len(tasks) :]:
        axis.set_visible(False)
    for axis in grid[:, 0]:
        axis.set_ylabel('success, %')
    for axis in list(grid.flat)[max(0, len(tasks) - columns) : len(tasks)]:
        axis.set_xlabel('denoise steps')
        axis.tick_params(labelbottom=True)
    handles, labels = next(iter(grid.flat)).get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=4, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _panel(
    axis: Axes,
    points: Sequence[SuccessPoint],
    lines: Sequence[tuple[str, str]],
    steps: Sequence[int],
) -> None:
    precisions = list(dict.fromkeys(precision for precision, _ in lines))
    for precision, prompts in lines:
        found = sorted(
            (p for p in points if (p.precision, p.prompts) == (precision, prompts)),
            key=lambda p: p.steps,
        )
        # Step counts are choices, not a scale: they stand at equal distances.
        x = [steps.index(p.steps) for p in found]
        low, high = ([100 * p.interval95[end] for p in found] for end in (0, 1))
        colour = _COLOURS[precisions.index(precision) % len(_COLOURS)]
        label = precision if prompts == 'canonical' else f'{precision}, {prompts} prompts'
        style = _STYLES.get(prompts, 'o-')
        rates = [100 * p.success_rate for p in found]
        axis.plot(x, rates, style, color=colour, markersize=4, label=label)
        if len(x) > 1:
            axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        elif x:
            axis.vlines(x, low, high, color=colour, alpha=0.4)
    axis.set_xticks(range(len(steps)), [str(n) for n in steps])
    axis.set_ylim(-3, 103)
    axis.set_axisbelow(True)
    axis.grid(axis='y', color='#e3e6ea')
    axis.spines[['top', 'right']].set_visible(False)
