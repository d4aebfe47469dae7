"""Robot units <-> the network's units, from the statistics of the training data.

Wrong statistics look like a numeric bug and cost all success, so they are checked when read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vla_trt_ros.datatypes import Float32Array, Float64Array
from vla_trt_ros.errors import BundleError

Method = Literal['quantiles', 'mean_std']

_EPSILON = 1e-6
_FIELDS = ('mean', 'std', 'q01', 'q99')


@dataclass(frozen=True, slots=True)
class NormStats:
    """Statistics of 'state' or 'actions', float64 [D] each, in the robot's units."""

    mean: Float64Array
    std: Float64Array
    q01: Float64Array
    q99: Float64Array

    def linear(self, method: Method) -> tuple[Float64Array, Float64Array]:
        """(offset, scale) with normalised = (x - offset) / scale."""
        if method == 'mean_std':
            return self.mean, self.std + _EPSILON
        half = (self.q99 - self.q01 + _EPSILON) / 2.0
        return self.q01 + half, half


class Normalize:
    """Robot units -> q01 at -1 and q99 at +1 (or mean 0 and deviation 1)."""

    def __init__(self, stats: NormStats, method: Method) -> None:
        self._offset, self._scale = stats.linear(method)

    def __call__(self, x: Float32Array) -> Float32Array:
        """[..., D] -> the same shape. Values outside the quantiles go beyond -1 and 1."""
        return np.asarray((x - self._offset) / self._scale, dtype=np.float32)


class Unnormalize:
    """The inverse of `Normalize`."""

    def __init__(self, stats: NormStats, method: Method) -> None:
        self._offset, self._scale = stats.linear(method)

    def __call__(self, x: Float32Array) -> Float32Array:
        """[..., D] -> the same shape."""
        return np.asarray(x * self._scale + self._offset, dtype=np.float32)


def load_norm_stats(path: Path, dims: dict[str, int]) -> dict[str, NormStats]:
    """Statistics from openpi's norm_stats.json, cut to the first ``dims[key]`` entries.

    ``dims`` has the keys 'state' and 'actions'. BundleError names what is missing, too short, not
    finite or upside down.
    """
    try:
        stats = json.loads(path.read_text(encoding='utf-8'))['norm_stats']
        return {key: _read(stats[key], dim, f'{path}: {key}') for key, dim in dims.items()}
    except (OSError, ValueError, TypeError) as error:
        raise BundleError(f'{path} cannot be read ({error}); export the bundle again.') from error
    except KeyError as error:
        raise BundleError(f'{path}: {error} is missing; export the bundle again.') from error


def save_norm_stats(path: Path, stats: dict[str, NormStats]) -> None:
    """Write ``stats`` in the layout that `load_norm_stats` reads."""
    data = {
        key: {name: getattr(value, name).tolist() for name in _FIELDS}
        for key, value in stats.items()
    }
    path.write_text(json.dumps({'norm_stats': data}, indent=2) + '\n', encoding='utf-8')


def _read(data: dict[str, list[float]], dim: int, where: str) -> NormStats:
    columns = {}
    for name in _FIELDS:
        values = np.asarray(data[name], dtype=np.float64)
        if values.ndim != 1 or values.size < dim:
            raise BundleError(
                f'{where}: {name} has shape {list(values.shape)}, the layout has {dim} entries; '
                'these are the statistics of another robot.'
            )
        if not np.isfinite(values[:dim]).all():
            raise BundleError(f'{where}: {name} is not finite; compute the statistics again.')
        columns[name] = values[:dim]
    if (columns['q99'] < columns['q01']).any() or (columns['std'] < 0).any():
        raise BundleError(f'{where}: q99 lies below q01 or std below 0; compute them again.')
    return NormStats(**columns)
