"""Normalisation statistics as openpi and LeRobot write them.

openpi: norm_stats.json. LeRobot: the normaliser's safetensors file of a trained policy, or
stats.json (meta/stats.json) of a data set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from vla_trt_ros.bundle import Layout
from vla_trt_ros.datatypes import Float64Array
from vla_trt_ros.errors import BundleError
from vla_trt_ros.preprocess.normalize import Method, NormStats

Mode = Literal['QUANTILES', 'MEAN_STD', 'MIN_MAX', 'QUANTILE10']
"""LeRobot's names for how a column is normalised."""

Columns = Mapping[str, Float64Array]
_ENDS = {'QUANTILES': ('q01', 'q99'), 'MIN_MAX': ('min', 'max'), 'QUANTILE10': ('q10', 'q90')}
_LEROBOT_KEYS = {'state': 'observation.state', 'actions': 'action'}
_NAMES = (
    'norm_stats.json',
    'assets/**/norm_stats.json',
    'policy_preprocessor*normalizer*.safetensors',
    'stats.json',
    'meta/stats.json',
)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a bundle stores: 'state' and 'actions', and how they are used."""

    stats: dict[str, NormStats]
    method: Method


def find_statistics(folder: Path) -> Path:
    """The file of statistics in a checkpoint; BundleError if there is none, or several."""
    found: list[Path] = []
    for pattern in _NAMES:
        found = found or sorted(folder.glob(pattern))
    if len(found) == 1:
        return found[0]
    if found:
        names = ', '.join(str(p.relative_to(folder)) for p in found)
        raise BundleError(
            f'{folder} holds statistics of several data sets: {names}; choose one with --stats.'
        )
    raise BundleError(
        f'{folder} holds no statistics (norm_stats.json, stats.json or a policy_preprocessor '
        'file); name them with --stats.'
    )


def read_statistics(
    path: Path, layout: Layout, modes: Mapping[str, Mode] | None = None
) -> Statistics:
    """The statistics in ``path`` for the state and actions of ``layout``.

    ``modes`` says how 'state' and 'actions' are normalised, quantiles if it is None. Two different
    modes, and LeRobot's less usual ones, are put as the quantiles that give the same numbers.
    BundleError names what is missing, not finite, upside down or of another length than the
    layout: the statistics of another robot.
    """
    modes = modes or {'state': 'QUANTILES', 'actions': 'QUANTILES'}
    dims = {'state': len(layout.state), 'actions': len(layout.actions)}
    columns = {
        key: _of_length(table, dims[key], layout.robot, f'{path}: {key}')
        for key, table in _reader(path)(path).items()
    }
    method: Method = 'quantiles'
    if set(modes.values()) == {'MEAN_STD'}:
        method = 'mean_std'
    stats = {
        key: _stats(columns[key], modes[key], method, f'{path}: {key}')
        for key in ('state', 'actions')
    }
    return Statistics(stats, method)


def parse_mode(name: object, where: str) -> Mode:
    """``name`` as a mode; BundleError for IDENTITY and for modes that LeRobot may yet invent."""
    for mode in get_args(Mode):
        if name == mode:
            return mode
    raise BundleError(
        f'{where}: normalisation {name!r} is none of {", ".join(get_args(Mode))}; such a policy '
        'cannot be exported.'
    )


def _reader(path: Path) -> Callable[[Path], dict[str, Columns]]:
    return _read_safetensors if path.suffix == '.safetensors' else _read_json


def _read_json(path: Path) -> dict[str, Columns]:
    try:
        data = json.loads(path.read_text(encoding='utf-8'))
        if 'norm_stats' in data:
            tables = {key: data['norm_stats'][key] for key in ('state', 'actions')}
        else:
            tables = {key: data[name] for key, name in _LEROBOT_KEYS.items()}
        return {
            key: {
                name: np.asarray(values, dtype=np.float64).reshape(-1)
                for name, values in table.items()
                if values is not None
            }
            for key, table in tables.items()
        }
    except KeyError as error:
        raise BundleError(f'{path}: {error} is missing; name another file with --stats.') from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BundleError(f'{path} cannot be read as statistics ({error}).') from error


def _read_safetensors(path: Path) -> dict[str, Columns]:
    from vla_trt_ros.export.tensor_files import TensorFiles

    files = TensorFiles([path])
    tables: dict[str, Columns] = {}
    for key, name in _LEROBOT_KEYS.items():
        lead = f'{name}.'
        tables[key] = {
            tensor.removeprefix(lead): files.load(tensor).double().numpy().reshape(-1)
            for tensor in files.shapes
            if tensor.startswith(lead) and '.' not in tensor.removeprefix(lead)
        }
        if not tables[key]:
            raise BundleError(f'{path}: {name!r} is missing; name another file with --stats.')
    return tables


def _of_length(table: Columns, dim: int, robot: str, where: str) -> Columns:
    """Columns cut to ``dim``; what is cut must be padding, zeros in every column but count."""
    cut = {}
    for name, values in table.items():
        if name == 'count':
            continue
        if values.size < dim or values[dim:].any():
            raise BundleError(
                f'{where}: {name} has {values.size} entries, robot {robot!r} has {dim}; these are '
                'the statistics of another robot.'
            )
        cut[name] = values[:dim]
    return cut


def _stats(columns: Columns, mode: Mode, method: Method, where: str) -> NormStats:
    def column(name: str) -> Float64Array:
        if name not in columns:
            raise BundleError(
                f'{where}: {name} is missing, which {mode} needs; compute the statistics again.'
            )
        if not np.isfinite(columns[name]).all():
            raise BundleError(f'{where}: {name} is not finite; compute the statistics again.')
        return columns[name]

    mean, std = column('mean'), column('std')
    if mode == 'MEAN_STD':
        low, high = mean - std, mean + std
        if method == 'mean_std' and {'q01', 'q99'} <= set(columns):
            low, high = column('q01'), column('q99')
    else:
        low, high = (column(name) for name in _ENDS[mode])
    if (high < low).any() or (std < 0).any():
        raise BundleError(f'{where}: q99 lies below q01 or std below 0; compute them again.')
    return NormStats(mean, std, low, high)
