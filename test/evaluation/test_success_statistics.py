"""Intervals against numbers from elsewhere."""

import pytest

from vla_trt_ros.evaluation.statistics import wilson


@pytest.mark.parametrize(
    ('successes', 'episodes', 'interval'),
    [
        (45, 50, (0.7864, 0.9565)),
        (0, 10, (0.0, 0.2775)),
        (10, 10, (0.7225, 1.0)),
        (50, 100, (0.4038, 0.5962)),
        (1, 1, (0.2065, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson(successes, episodes, interval):
    assert wilson(successes, episodes) == pytest.approx(interval, abs=6e-5)


def test_its_ends_solve_the_equation_that_it_comes_from():
    n, p = 40, 33 / 40
    for end in wilson(33, 40):
        assert (p - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / n, rel=1e-5)
