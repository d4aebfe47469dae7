"""What rviz shows, as one picture: cameras with detections, the chunk's path, the status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vla_trt_ros.datatypes import Float64Array, Uint8Array
from vla_trt_ros.viz.boxes import Box, draw_boxes
from vla_trt_ros.viz.tip_path import row_colours

_TILE = 480  # pixels: the longer side of a camera's picture
_INK = '#333333'


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a run. ``pictures`` uint8 [H, W, 3] RGB and ``boxes`` in their pixels, by
    camera; ``path`` float64 [N, 3], m, may have no rows; ``words`` are a few lines.
    """

    pictures: Mapping[str, Uint8Array]
    boxes: Mapping[str, Sequence[Box]]
    path: Float64Array
    words: str
    frame: str = 'base_link'
    """Coordinates of ``path``."""


def plot_scene(snapshot: Snapshot, out: Path) -> Path:
    """Draw ``snapshot`` into the PNG ``out`` and return its path."""
    views = list(snapshot.pictures)
    figure = Figure(figsize=(4.6 * (len(views) + 1), 5.2), dpi=100, facecolor='white')
    FigureCanvasAgg(figure)
    for k, view in enumerate(views):
        axes = figure.add_subplot(1, len(views) + 1, k + 1)
        boxes = snapshot.boxes.get(view, ())
        axes.imshow(_enlarged(snapshot.pictures[view], boxes))
        axes.set_title(f'{view}: {len(boxes)} detections', color=_INK, fontsize=11)
        axes.set_axis_off()
    axes = figure.add_subplot(1, len(views) + 1, len(views) + 1, projection='3d')
    _draw_path(axes, snapshot)
    figure.text(0.5, 0.02, snapshot.words, ha='center', va='bottom', color=_INK, fontsize=10)
    figure.subplots_adjust(left=0.01, right=0.96, top=0.93, bottom=0.13, wspace=0.05)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def _enlarged(picture: Uint8Array, boxes: Sequence[Box]) -> Uint8Array:
    """Large enough for words to be read: whole pixels, repeated."""
    times = max(1, _TILE // max(picture.shape[:2]))
    large = picture.repeat(times, axis=0).repeat(times, axis=1)
    scaled = [
        Box(b.left * times, b.upper * times, b.right * times, b.lower * times, b.text, b.label)
        for b in boxes
    ]
    return draw_boxes(large, scaled)


def _draw_path(axes: Any, snapshot: Snapshot) -> None:
    axes.set_title(f'path of the newest chunk, m in {snapshot.frame}', color=_INK, fontsize=11)
    path = snapshot.path
    if not len(path):
        axes.text2D(0.5, 0.5, 'no path', transform=axes.transAxes, ha='center', color=_INK)
        return
    x, y, z = path.T
    axes.plot(x, y, z, color='#9aa3ad', linewidth=1.5)
    axes.scatter(x, y, z, c=row_colours(len(path)), s=36, depthshade=False)
    middle, reach = path.mean(axis=0), max(float(np.ptp(path, axis=0).max()) / 2, 0.02) * 1.2
    for k, name in enumerate('xyz'):
        getattr(axes, f'set_{name}lim')(middle[k] - reach, middle[k] + reach)
        getattr(axes, f'set_{name}label')(name, labelpad=-4)
        getattr(axes, f'{name}axis').set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=7, pad=-1)
