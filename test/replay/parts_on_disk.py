"""Parts as a replay leaves them, from a few numbers."""

import math

import numpy as np

from vla_trt_ros.replay.parts import PartResult, Table

COLUMNS = (
    't', 'block', 'mae_h1', 'mae_all', 'mae_all.hand_x', 'seam', 'jerk', 'jerk_recorded',
    'gripper_agreement', 'inference_ms', 'latency_ms', 'starved_ms',
)  # fmt: skip


def part(bag='bag', seed=0, counts=None, moments=(), **values):
    """Columns that are not given are NaN; frames are 50 ms apart, blocks as Judge makes them."""
    count = len(next(iter(values.values())))
    table = np.full((count, len(COLUMNS)), math.nan)
    t = np.asarray(values.get('t', 0.05 * np.arange(count)))
    given = {'t': t, 'block': 1000 + t // 5, **values}
    for name, column in given.items():
        table[:, COLUMNS.index(name)] = column
    facts = {'counts': counts or {}, 'moments': list(moments), 'source': 'command', 'notes': []}
    return PartResult({'bag': bag, 'seed': seed}, Table(COLUMNS, table), facts)
