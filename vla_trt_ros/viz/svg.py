"""Small charts as SVG text for a page without a network: lines, histograms, intervals.

Colours are classes of the page's style sheet (s0, s1, ... for series, ink, grid), so that light
and dark pages use the same drawing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from vla_trt_ros.datatypes import Float64Array

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 8, 26
_POINTS = 700


@dataclass(frozen=True, slots=True)
class Line:
    """A series: ``x`` rising and ``y`` float64 [N], NaN where the line has a gap."""

    style: str
    x: Float64Array
    y: Float64Array


def line_chart(
    lines: Sequence[Line], *, unit: str, width: int = 860, height: int = 170, x_unit: str = 's'
) -> str:
    """Lines over a shared x; '' where there is nothing to draw."""
    known = [v for line in lines for v in (line.y[np.isfinite(line.y)],) if len(v)]
    if not known:
        return ''
    low, high = min(float(v.min()) for v in known), max(float(v.max()) for v in known)
    frame = _Frame(
        (min(float(line.x[0]) for line in lines), max(float(line.x[-1]) for line in lines)),
        _padded(low, high),
        width,
        height,
    )
    drawn = [frame.axes(unit, x_unit)]
    for line in lines:
        x, y = thin(line.x, line.y)
        for part in _unbroken(y):
            points = ' '.join(
                f'{frame.x(a):.1f},{frame.y(b):.1f}' for a, b in zip(x[part], y[part], strict=True)
            )
            drawn.append(f'<polyline class="{escape(line.style)}" points="{points}"/>')
    return _svg(width, height, drawn)


def histogram(
    series: Sequence[tuple[str, Float64Array]],
    *,
    unit: str,
    width: int = 860,
    height: int = 170,
    mark: float | None = None,
) -> str:
    """Outlines of the shares of each (style, values) over common bins up to the 99.9th percentile;
    ``mark`` is a line across, such as a deadline.
    """
    values = [v[np.isfinite(v)] for _, v in series]
    if not any(len(v) for v in values):
        return ''
    everything = np.concatenate(values)
    low, high = float(everything.min()), float(np.percentile(everything, 99.9))
    low, high = _padded(low, max(high, mark or high))
    bins = np.linspace(low, high, 61)
    shares = [np.histogram(v, bins)[0] / max(1, len(v)) for v in values]
    frame = _Frame((low, high), (0.0, 1.05 * float(max(s.max() for s in shares))), width, height)
    drawn = [frame.axes('share', unit)]
    for (style, _), share in zip(series, shares, strict=True):
        x, y = np.repeat(bins, 2), np.concatenate([[0.0], np.repeat(share, 2), [0.0]])
        points = ' '.join(f'{frame.x(a):.1f},{frame.y(b):.1f}' for a, b in zip(x, y, strict=True))
        drawn.append(f'<polyline class="{escape(style)}" points="{points}"/>')
    if mark is not None:
        x0 = frame.x(mark)
        drawn.append(
            f'<line class="mark" x1="{x0:.1f}" x2="{x0:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
        )
    return _svg(width, height, drawn)


def interval_bar(mean: float, low: float, high: float, *, width: int = 180) -> str:
    """A mean with its interval around 0, on a scale of its own."""
    ends = [v for v in (mean, low, high) if math.isfinite(v)]
    reach = max((abs(v) for v in ends), default=0.0) or 1.0
    middle, scale = width / 2, (width / 2 - 6) / reach
    drawn = [f'<line class="zero" x1="{middle}" x2="{middle}" y1="1" y2="17"/>']
    if math.isfinite(low) and math.isfinite(high):
        ends_x = middle + low * scale, middle + high * scale
        drawn.append(
            f'<line class="s0 wide" x1="{ends_x[0]:.1f}" x2="{ends_x[1]:.1f}" y1="9" y2="9"/>'
        )
    drawn.append(f'<circle class="dot" cx="{middle + mean * scale:.1f}" cy="9" r="3.5"/>')
    return _svg(width, 18, drawn)


def thin(x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Fewer points that look the same: of each of 350 stretches the least and the greatest."""
    if len(x) <= _POINTS:
        return x, y
    kept: list[int] = []
    for part in np.array_split(np.arange(len(x)), _POINTS // 2):
        values = y[part]
        known = np.flatnonzero(np.isfinite(values))
        if not len(known):
            kept.append(int(part[0]))  # a gap stays one
            continue
        ends = {int(part[known[values[known].argmin()]]), int(part[known[values[known].argmax()]])}
        kept += sorted(ends)
    return x[kept], y[kept]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, two at least where there is room for them."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next((m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= most), 10)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + k) * step for k in range(count)]


class _Frame:
    """The rectangle of a chart and the two scales in it."""

    def __init__(
        self, xs: tuple[float, float], ys: tuple[float, float], width: int, height: int
    ) -> None:
        self._xs = xs if xs[1] > xs[0] else (xs[0], xs[0] + 1.0)
        self._ys = ys
        self._width, self._height = width, height

    def x(self, value: float) -> float:
        share = (value - self._xs[0]) / (self._xs[1] - self._xs[0])
        return _LEFT + share * (self._width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self._ys[0]) / (self._ys[1] - self._ys[0])
        return self._height - _BOTTOM - share * (self._height - _TOP - _BOTTOM)

    def axes(self, unit: str, x_unit: str) -> str:
        parts = []
        right, base = self._width - _RIGHT, self._height - _BOTTOM
        for value in ticks(*self._ys, most=4):
            y = self.y(value)
            across = f'x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"'
            parts.append(f'<line class="grid" {across}/>')
            parts.append(_text(_LEFT - 6, y + 3.5, f'{value:g}', 'end'))
        parts += [
            _text(self.x(value), base + 15, f'{value:g}', 'middle')
            for value in ticks(*self._xs, most=10)
        ]
        parts.append(_text(right, base + 25, x_unit, 'end'))
        middle = (_TOP + base) / 2
        parts.append(
            f'<text transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">'
            f'{escape(unit)}</text>'
        )
        return ''.join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _unbroken(y: Float64Array) -> list[slice]:
    known = np.isfinite(y).astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], known, [0]])))
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _svg(width: int, height: int, drawn: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f'{"".join(drawn)}</svg>'
    )
