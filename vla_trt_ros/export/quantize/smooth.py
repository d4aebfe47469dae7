"""SmoothQuant: move the spread of activation channels into the weights, where it does less harm.

One loud channel sets the scale of a whole activation, and leaves the quiet ones a few of 255
levels. Dividing each channel by s, and multiplying its row of the weight by s, changes nothing but
the rounding.
"""

from __future__ import annotations

import numpy as np

from vla_trt_ros.datatypes import Float32Array

_STRENGTHS = (0.35, 0.5, 0.65)
_WORTH = 0.8
"""Smooth where the expected squared error falls below this share: it costs a multiplication."""
_CREST = 4.0
"""Peak over root mean square that a channel is taken to have."""


def smoothing(channels: Float32Array, weight: Float32Array) -> Float32Array | None:
    """Divisors [K] of the activation's channels, or None where they would not pay.

    ``channels`` float32 [K]: largest magnitude seen in each; ``weight`` float32 [K, N]: all that
    read the activation, side by side.
    """
    floor = float(channels.max()) * 1e-4
    if floor <= 0:
        return None
    loud = np.maximum(channels, floor)
    rows = np.maximum(np.abs(weight).max(axis=1), 1e-12)
    plain = expected_error(loud, weight)
    best, chosen = _WORTH * plain, None
    for strength in _STRENGTHS:
        divisors = loud**strength / rows ** (1.0 - strength)
        divisors = (divisors / np.exp(np.log(divisors).mean())).astype(np.float32)
        error = expected_error(loud / divisors, weight * divisors[:, None])
        if error < best:
            best, chosen = error, divisors
    return chosen


def expected_error(channels: Float32Array, weight: Float32Array) -> float:
    """Squared error of the product, to a factor, when both sides are rounded to 8 bits.

    Rounding noise has a variance in proportion to the square of its scale: one scale for the
    activation, one per column of the weight.
    """
    power = np.square(channels / _CREST).sum()
    activation = np.square(channels.max()) * np.square(weight).sum()
    columns = np.square(np.abs(weight).max(axis=0)).sum() * power
    return float(activation + columns)
