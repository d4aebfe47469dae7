"""Loss, and success of the learning policy, over time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def plot(out: Path, tasks: tuple[str, ...], *, every: float, window: int) -> None:
    """OUT/log.jsonl -> OUT/loss.png: a record each ``every`` seconds, success over the latest
    ``window`` episodes of a task.
    """
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    lines = (out / 'log.jsonl').read_text(encoding='utf-8').splitlines()
    records = [r for r in map(json.loads, lines) if 'loss' in r]
    if not records:
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout='constrained')
    minutes = np.arange(len(records)) * every / 60.0
    left.plot(minutes, [r['loss'] for r in records], color='#2f6db3')
    left.set(xlabel='minutes of learning', ylabel='flow-matching loss', yscale='log')
    for task in tasks:
        points = [
            (m, r['policy_success'][task][0] / r['policy_success'][task][1])
            for m, r in zip(minutes, records, strict=True)
            if task in r.get('policy_success', {})
        ]
        if points:
            right.plot(*zip(*points, strict=True), label=task, linewidth=1.2)
    right.set(xlabel='minutes of learning', ylabel=f'success, latest {window} of its episodes')
    right.legend(fontsize=7, frameon=False)
    figure.savefig(out / 'loss.png', dpi=130)
    plt.close(figure)
