"""Normalisation statistics of recordings, as openpi computes them for training.

Mean and deviation over all rows; quantiles from a histogram of 5000 bins over the range seen so
far, so that no row has to be kept. Actions count as the chunks that a policy learns: from each
step on ``horizon`` rows, the last one of the episode repeated, relative columns less the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from vla_trt_ros.actions.layout import ActionKind, JointLayout
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.conversion.moments import Moment
from vla_trt_ros.datatypes import Float32Array, Float64Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.preprocess.normalize import NormStats

BINS = 5000
_EDGE = 1e-10
_BATCH = 256


class Running:
    """Statistics of rows that come bit by bit."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Float64Array = np.zeros(0)
        self._squares: Float64Array = np.zeros(0)
        self._edges: Float64Array = np.zeros((0, 0))
        self._bins: Float64Array = np.zeros((0, 0))

    def add(self, rows: Float32Array | Float64Array) -> None:
        """``rows`` [..., D], D the same in every call, N at least 1."""
        values: Float64Array = np.asarray(rows, np.float64).reshape(-1, np.shape(rows)[-1])
        low, high = values.min(axis=0), values.max(axis=0)
        if not self.count:
            self._sum = self._squares = np.zeros(values.shape[1])
            self._edges = np.linspace(low - _EDGE, high + _EDGE, BINS + 1, axis=1)
            self._bins = np.zeros((values.shape[1], BINS))
        else:
            self._widen(low, high)
        self.count += len(values)
        self._sum = self._sum + values.sum(axis=0)
        self._squares = self._squares + (values**2).sum(axis=0)
        for column, edges, bins in zip(values.T, self._edges, self._bins, strict=True):
            bins += np.histogram(column, edges)[0]

    def stats(self) -> NormStats:
        """Of everything added so far; ConfigError for fewer than two rows."""
        if self.count < 2:
            raise ConfigError(f'{self.count} step(s) are too few for statistics: record more.')
        mean = self._sum / self.count
        deviation = np.sqrt(np.maximum(0.0, self._squares / self.count - mean**2))
        return NormStats(mean, deviation, self._quantile(0.01), self._quantile(0.99))

    def _widen(self, low: Float64Array, high: Float64Array) -> None:
        """Let the bins of a column reach from ``low`` to ``high``, counts by their lower edges."""
        for i, (edges, bins) in enumerate(zip(self._edges, self._bins, strict=True)):
            if edges[0] <= low[i] and high[i] <= edges[-1]:
                continue
            # The old lowest edge is inside: the counts of the lowest bin stay counted.
            first = min(edges[0], low[i] - _EDGE)
            last = max(edges[-1], high[i] + _EDGE)
            wider = np.linspace(first, last, BINS + 1)
            self._bins[i] = np.histogram(edges[:-1], wider, weights=bins)[0]
            self._edges[i] = wider

    def _quantile(self, share: float) -> Float64Array:
        target = share * self.count
        return np.array(
            [
                edges[np.searchsorted(np.cumsum(bins), target)]
                for edges, bins in zip(self._edges, self._bins, strict=True)
            ]
        )


def dataset_stats(
    moments: Iterable[Moment],
    robot: RobotConfig,
    horizon: int,
    state: Sequence[str],
    actions: Sequence[tuple[str, ActionKind]],
) -> tuple[dict[str, NormStats], int]:
    """Statistics under 'state' and 'actions', and the number of steps they are of.

    ``state`` and ``actions`` name the columns as the policy's layout does. ConfigError where they
    do not fit the robot, or there are fewer than two steps.
    """
    layout = JointLayout(
        robot,
        state_names=tuple(state),
        action_names=tuple(name for name, _ in actions),
        action_kinds=tuple(kind for _, kind in actions),
    )
    order = [robot.state_names.index(name) for name in state]
    running = {'state': Running(), 'actions': Running()}
    for _, episode in groupby(moments, key=lambda moment: moment.episode):
        pairs = [(m.state[order], m.action) for m in episode]
        states = np.stack([s for s, _ in pairs])
        done = np.stack([a for _, a in pairs])
        for begin in range(0, len(pairs), _BATCH):
            rows = range(begin, min(begin + _BATCH, len(pairs)))
            running['state'].add(states[rows.start : rows.stop])
            chunks = [
                layout.from_robot(
                    done[np.minimum(np.arange(k, k + horizon), len(done) - 1)], states[k]
                )
                for k in rows
            ]
            running['actions'].add(np.stack(chunks))
    return {key: value.stats() for key, value in running.items()}, running['state'].count
