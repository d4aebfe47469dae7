"""The picture of success."""

from types import SimpleNamespace

import cv2
import pytest

pytest.importorskip('matplotlib', reason="needs the sim extra: pip install '.[sim]'")

from vla_trt_ros.errors import BadInput
from vla_trt_ros.viz.success_plot import plot_success


def point(task, steps, rate, precision='fp32', prompts='canonical'):
    return SimpleNamespace(
        task=task,
        steps=steps,
        precision=precision,
        prompts=prompts,
        success_rate=rate,
        interval95=(max(0.0, rate - 0.1), min(1.0, rate + 0.1)),
    )


def test_a_panel_for_each_task_and_a_line_for_each_setting(tmp_path):
    fp32 = [point(t, n, r) for t, r in (('mean', 0.9), ('reach', 0.7)) for n in (1, 3, 10)]
    more = [point('reach', n, 0.4, 'int8') for n in (1, 10)]
    more += [point('mean', 3, 0.1, prompts='shuffled')]
    one = cv2.imread(str(plot_success(fp32, tmp_path / 'one.png', title='demo')))
    all_ = cv2.imread(
        str(plot_success([*fp32, *more], tmp_path / 'new' / 'all.png', title='demo'))
    )
    five = plot_success(
        [point(f'task {k}', 1, 0.5) for k in range(5)], tmp_path / 'five.png', title='demo'
    )
    assert one.shape == all_.shape == (429, 814, 3)
    assert (one != all_).any(axis=-1).mean() > 0.005
    assert cv2.imread(str(five)).shape == (726, 1518, 3)


def test_nothing_to_draw(tmp_path):
    with pytest.raises(BadInput, match='no results'):
        plot_success([], tmp_path / 'none.png', title='')
