"""How sure a count of successes is."""

from __future__ import annotations

import math

_Z95 = 1.959963984540054  # a normal variable is within this many deviations 95 % of the time


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """95 % score interval of a success rate, both ends 0 to 1; (0, 1) without episodes.

    Wilson, JASA 22 (1927), 209-212: unlike rate +- 1.96 s it stays inside 0 to 1 and says
    something at 0 and at all of n.
    centre = (p + z^2 / 2n) / (1 + z^2 / n)
    half   = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2)
    """
    if episodes == 0:
        return 0.0, 1.0
    n, p, z2 = episodes, successes / episodes, _Z95**2
    scale = 1.0 + z2 / n
    centre = (p + z2 / (2 * n)) / scale
    half = _Z95 / scale * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # Rounding may leave the end at 0 or 1 a hair outside.
    return max(0.0, centre - half), min(1.0, centre + half)
