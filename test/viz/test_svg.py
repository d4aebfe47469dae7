"""Charts as text: in the frame, gaps kept, and no more points than can be seen."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from vla_trt_ros.viz.svg import Line, histogram, interval_bar, line_chart, thin, ticks


def polylines(text):
    root = ElementTree.fromstring(text)
    return [
        np.array([p.split(',') for p in e.get('points').split()], np.float64)
        for e in root.findall('polyline')
    ]


def test_line_rises_to_the_right_inside_the_frame():
    x = np.linspace(0.0, 4.0, 20)
    (points,) = polylines(line_chart([Line('s0', x, x**2)], unit='m', width=400, height=100))
    assert (np.diff(points[:, 0]) > 0).all()
    assert (np.diff(points[:, 1]) <= 0).all()  # down is positive
    assert points.min() >= 0.0
    assert points[:, 0].max() <= 400
    assert points[:, 1].max() <= 100


def test_gap_breaks_the_line():
    y = np.array([1.0, 2.0, math.nan, 3.0, 4.0, 5.0])
    parts = polylines(line_chart([Line('s0', np.arange(6.0), y)], unit='m'))
    assert [len(p) for p in parts] == [2, 3]


def test_nothing_known_is_no_chart_and_a_constant_is_one():
    assert line_chart([Line('s0', np.arange(2.0), np.full(2, math.nan))], unit='m') == ''
    (points,) = polylines(line_chart([Line('s0', np.arange(2.0), np.zeros(2))], unit='m'))
    assert np.isfinite(points).all()


def test_long_lines_keep_their_peaks():
    x, y = np.arange(50_000.0), np.zeros(50_000)
    y[31_007] = 5.0
    y[700] = -3.0
    few_x, few_y = thin(x, y)
    assert len(few_x) <= 700
    assert (np.diff(few_x) > 0).all()
    assert few_y.max() == 5.0
    assert few_x[few_y.argmin()] == 700


def test_histogram_shares_and_mark():
    rng = np.random.default_rng(0)
    text = histogram([('s0', rng.normal(20, 2, 500)), ('s1', rng.normal(40, 2, 50))], unit='ms')
    assert len(polylines(text)) == 2
    assert 'class="mark"' not in text
    assert 'class="mark"' in histogram([('s0', np.array([1.0, 2.0]))], unit='ms', mark=5.0)
    assert histogram([('s0', np.array([]))], unit='ms') == ''


def test_interval_stands_on_its_side_of_zero():
    def ends(text):
        line = re.search(r'class="s0 wide" x1="([\d.]+)" x2="([\d.]+)"', text)
        return float(line[1]), float(line[2])

    assert ends(interval_bar(2.0, 1.0, 3.0, width=100))[0] > 50
    assert ends(interval_bar(-2.0, -3.0, -1.0, width=100))[1] < 50
    assert 's0 wide' not in interval_bar(2.0, math.nan, math.nan)
    ElementTree.fromstring(interval_bar(0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ('low', 'high', 'expected'),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (-0.12, 0.31, [-0.1, 0.0, 0.1, 0.2, 0.3]),
        (0.0, 0.0007, [0.0, 0.0002, 0.0004, 0.0006]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_words_are_escaped():
    text = line_chart([Line('s0', np.arange(2.0), np.arange(2.0))], unit='<m & "s">')
    assert '&lt;m &amp; &quot;s&quot;&gt;' in text
    ElementTree.fromstring(text)
