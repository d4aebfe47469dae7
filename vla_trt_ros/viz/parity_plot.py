"""How far each precision is from float32, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vla_trt_ros.errors import BadInput

_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#882255')
_PARTS = {'vision': '#56b4e9', 'prefix': '#0072b2', 'denoise': '#009e73', 'policy': '#333333'}
_FLOOR = 1e-7


class ParityScore(Protocol):
    """What is drawn of a score (export.parity.Score)."""

    @property
    def precision(self) -> str:
        """Name of the precision."""
        ...

    @property
    def part(self) -> str:
        """A stage, or 'policy'."""
        ...

    @property
    def steps(self) -> int | None:
        """Denoise steps."""
        ...

    @property
    def cosine(self) -> float:
        """Mean over frames."""
        ...

    @property
    def worst(self) -> float:
        """Of the worst frame."""
        ...


def plot_parity(scores: Sequence[ParityScore], path: Path, *, title: str) -> Path:
    """Write a PNG: parts at the largest step count on the left, the policy by steps on the right.

    Returns the path. BadInput without scores.
    """
    if not scores:
        raise BadInput('no scores: a plot needs one at least.')
    figure = Figure(figsize=(12, 5), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    precisions = list(dict.fromkeys(s.precision for s in scores))
    _plot_parts(left, scores, precisions)
    _plot_steps(right, scores, precisions)
    for axis in (left, right):
        axis.set_yscale('log')
        axis.set_axisbelow(True)
        axis.grid(axis='y', color='#e3e6ea')
        axis.spines[['top', 'right']].set_visible(False)
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _distance(cosine: float) -> float:
    return max(1.0 - cosine, _FLOOR)


def _plot_parts(axis: Axes, scores: Sequence[ParityScore], precisions: list[str]) -> None:
    most = max((s.steps or 0) for s in scores)
    width = 0.8 / len(_PARTS)
    for k, (part, colour) in enumerate(_PARTS.items()):
        found = {s.precision: s for s in scores if s.part == part and s.steps in (None, most)}
        places = [i for i, name in enumerate(precisions) if name in found]
        if not places:
            continue
        drawn = [found[precisions[i]] for i in places]
        x = np.array(places) + (k - (len(_PARTS) - 1) / 2) * width
        label = part if part in ('vision', 'prefix') else f'{part}, {most} steps'
        axis.bar(x, [_distance(s.cosine) for s in drawn], width, color=colour, label=label)
        axis.plot(x, [_distance(s.worst) for s in drawn], '_', color='#d55e00', markersize=9)
    axis.plot([], [], '_', color='#d55e00', markersize=9, label='worst frame')
    axis.set_xticks(range(len(precisions)), precisions)
    axis.set_ylabel('1 - cosine to float32')
    axis.set_title('each stage alone, and all together', fontsize=10)
    axis.legend(frameon=False, fontsize=8)


def _plot_steps(axis: Axes, scores: Sequence[ParityScore], precisions: list[str]) -> None:
    for k, name in enumerate(precisions):
        found = [s for s in scores if s.precision == name and s.part == 'policy' and s.steps]
        axis.plot(
            [s.steps or 0 for s in found],
            [_distance(s.cosine) for s in found],
            'o-',
            color=_COLOURS[k % len(_COLOURS)],
            markersize=4,
            label=name,
        )
    axis.set_xlabel('denoise steps')
    axis.set_title('actions of the whole policy', fontsize=10)
    axis.legend(frameon=False, fontsize=8)
