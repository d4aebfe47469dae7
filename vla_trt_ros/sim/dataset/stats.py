"""Statistics as LeRobot 0.4 keeps them in meta/stats.json and per episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.datatypes import Float32Array, Float64Array, Uint8Array

Stats = dict[str, Any]
"""min, max, mean, std, q01, q10, q50, q90, q99: a list per dimension; count: a list of one."""

_QUANTILES = {'q01': 0.01, 'q10': 0.10, 'q50': 0.50, 'q90': 0.90, 'q99': 0.99}
_AVERAGED = ('mean', *_QUANTILES)
_FRAMES = 8
_STRIDE = 4


def vector_stats(rows: NDArray[np.floating[Any]]) -> Stats:
    """Of ``rows`` [N, D], N at least 1: exact, a list of D numbers each."""
    values: Float64Array = np.asarray(rows, np.float64)
    quantiles = np.quantile(values, list(_QUANTILES.values()), axis=0)
    return {
        'min': values.min(axis=0).tolist(),
        'max': values.max(axis=0).tolist(),
        'mean': values.mean(axis=0).tolist(),
        'std': values.std(axis=0).tolist(),
        **{name: row.tolist() for name, row in zip(_QUANTILES, quantiles, strict=True)},
        'count': [len(values)],
    }


def image_stats(images: Uint8Array) -> Stats:
    """Of ``images`` uint8 [N, H, W, 3], per channel, 0 to 1, shaped [3, 1, 1] as LeRobot has it.

    Eight frames and every fourth pixel each way stand for all.
    """
    frames = np.linspace(0, len(images) - 1, min(_FRAMES, len(images))).round().astype(int)
    pixels = images[frames, ::_STRIDE, ::_STRIDE].reshape(-1, 3) / 255.0
    stats = vector_stats(pixels)
    shaped = {k: [[[x]] for x in v] for k, v in stats.items() if k != 'count'}
    return {**shaped, 'count': [len(frames)]}


def merged(parts: Sequence[Stats]) -> Stats:
    """Of several parts together. Mean and deviation are exact, quantiles weighted means of the
    parts' own: for images only, where nobody keeps every pixel.
    """
    counts = np.array([part['count'][0] for part in parts], np.float64)
    weights = counts / counts.sum()

    def column(name: str) -> Float64Array:
        return np.asarray([part[name] for part in parts], np.float64)

    def average(values: Float64Array) -> Float64Array:
        return np.asarray(np.tensordot(weights, values, axes=1))

    mean = average(column('mean'))
    variance = average(column('std') ** 2 + (column('mean') - mean) ** 2)
    return {
        'min': column('min').min(axis=0).tolist(),
        'max': column('max').max(axis=0).tolist(),
        **{name: average(column(name)).tolist() for name in _AVERAGED},
        'std': np.sqrt(variance).tolist(),
        'count': [int(counts.sum())],
    }


class Totals:
    """Statistics of a whole data set, gathered file by file.

    ``vectors`` are the features whose every row is kept, ``images`` those that are merged from the
    episodes' own.
    """

    def __init__(self, vectors: Sequence[str], images: Sequence[str]) -> None:
        self._rows: dict[str, list[Float32Array]] = {name: [] for name in vectors}
        self._parts: dict[str, list[Stats]] = {name: [] for name in images}

    def add(self, rows: Mapping[str, Float32Array], parts: Sequence[Mapping[str, Stats]]) -> None:
        """``rows``: vector feature -> float32 [N, D]. ``parts``: statistics of each episode."""
        for name, kept in self._rows.items():
            kept.append(rows[name])
        for name, gathered in self._parts.items():
            gathered += [part[name] for part in parts]

    def stats(self) -> dict[str, Stats]:
        """The content of meta/stats.json; something must have been added."""
        return {
            **{name: vector_stats(np.concatenate(rows)) for name, rows in self._rows.items()},
            **{name: merged(parts) for name, parts in self._parts.items()},
        }
