"""Ticks at max_rate, with one saved up."""

from itertools import pairwise

import pytest

from vla_trt_ros.pacing import Pace


def starts(took, arrivals, rate=10.0):
    """When ticks begin that take ``took`` s, one per arrival."""
    pace, free, begun = Pace(rate, 0.0), 0.0, []
    for arrival in arrivals:
        begin = max(arrival, free)
        begun.append(begin)
        end = begin + took
        free = end + max(0.0, pace.after_tick(end))
    return begun


def test_a_fast_policy_is_held_to_the_rate():
    begun = starts(0.01, [k * 0.01 for k in range(50)])
    gaps = [b - a for a, b in pairwise(begun[2:])]
    assert gaps == pytest.approx([0.1] * len(gaps))


def test_jitter_at_the_rate_loses_nothing():
    arrivals = [0.0, 0.13, 0.20, 0.33, 0.40]
    assert starts(0.01, arrivals) == pytest.approx(arrivals)


def test_a_slow_policy_never_waits():
    assert starts(0.25, [0.0] * 4) == pytest.approx([0.0, 0.25, 0.5, 0.75])
