"""Two settings on the same frames: the difference of their errors, and how sure it is.

Frames that follow each other are alike: a policy that is off now is off a moment later. Their
number says little; the draws are blocks of 5 s, or runs that are shorter, and the interval is a
bootstrap over blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_trt_ros.replay.parts import PartResult

_DRAWS = 4000
_Blocks = dict[tuple[str, int], list[float]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean of a metric, or of (this - reference), over frames, with its 95 % interval."""

    metric: str
    mean: float
    low: float
    high: float
    frames: int
    blocks: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out: a difference that is more than chance."""
        return self.low > 0.0 or self.high < 0.0


def mean_estimate(parts: Sequence[PartResult], metric: str) -> Estimate | None:
    """``metric``, a column, over all frames of ``parts``; None where no frame has it."""
    blocks: _Blocks = {}
    for part in parts:
        rows = zip(part.table[metric].tolist(), part.table['block'], strict=True)
        for value, block in rows:
            if math.isfinite(value):
                blocks.setdefault(_block(part, block), []).append(value)
    return _estimate(metric, blocks)


def paired_difference(
    these: Sequence[PartResult], reference: Sequence[PartResult], metric: str
) -> Estimate | None:
    """``metric`` is a column. Frames are paired by bag, noise seed and exposure; None where no
    frame has both.
    """
    others = {_identity(part): part for part in reference}
    blocks: _Blocks = {}
    for part in these:
        other = others.get(_identity(part))
        if other is None or metric not in other.table.columns:
            continue
        values = dict(zip(_keys(other), other.table[metric].tolist(), strict=True))
        rows = zip(_keys(part), part.table[metric].tolist(), part.table['block'], strict=True)
        for key, value, block in rows:
            difference = value - values.get(key, math.nan)
            if math.isfinite(difference):
                blocks.setdefault(_block(part, block), []).append(difference)
    return _estimate(metric, blocks)


def _estimate(metric: str, blocks: _Blocks) -> Estimate | None:
    """With S_b the sum and n_b the number of block b: mean = sum S_b / sum n_b, and the interval
    is from the 2.5th to the 97.5th percentile of that mean over 4000 draws of as many blocks, with
    replacement, from a fixed seed. Fewer than two blocks give an interval of NaN.
    """
    if not blocks:
        return None
    sums = np.array([sum(found) for found in blocks.values()])
    sizes = np.array([len(found) for found in blocks.values()])
    low = high = math.nan
    if len(blocks) > 1:
        drawn = np.random.default_rng(0).integers(0, len(blocks), (_DRAWS, len(blocks)))
        means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        low, high = (float(end) for end in np.percentile(means, (2.5, 97.5)))
    mean = float(sums.sum() / sizes.sum())
    return Estimate(metric, mean, low, high, int(sizes.sum()), len(blocks))


def _block(part: PartResult, block: float) -> tuple[str, int]:
    """All noises of a moment are one draw."""
    return str(part.conditions['bag']), int(block)


def _identity(part: PartResult) -> tuple[str, int]:
    return str(part.conditions['bag']), int(part.conditions['seed'])


def _keys(part: PartResult) -> list[int]:
    """Exposures, microseconds from the start of the bag."""
    return [round(seconds * 1e6) for seconds in part.table['t']]
