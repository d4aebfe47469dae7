"""The picture of a benchmark: one PNG, with and without floors and others."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('matplotlib', reason="needs the sim extra: pip install '.[sim]'")

from vla_trt_ros.errors import BadInput
from vla_trt_ros.viz.bench_plot import Bar, plot_bench

STAGES = {'preprocess': 0.5, 'vision': 2.0, 'prefix': 4.0, 'denoise': 0.5}
BARS = [Bar(n, 8.0 + n, STAGES | {'denoise': 0.5 * n}, 3.0 + 0.1 * n) for n in (1, 3, 10)]


def pixels(path):
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


def test_others_stand_in_a_panel_of_their_own(tmp_path):
    alone = plot_bench(BARS, [], tmp_path / 'new' / 'alone.png', title='nano')
    beside = plot_bench(BARS, [('a peer', 25.0)], tmp_path / 'beside.png', title='nano')
    assert pixels(beside).shape[1] > 1.5 * pixels(alone).shape[1]


def test_the_floor_is_drawn_where_it_is_known(tmp_path):
    bare = [Bar(b.steps, b.total_ms, b.stages_ms) for b in BARS]
    with_floor = pixels(plot_bench(BARS, [], tmp_path / 'a.png', title='nano'))
    without = pixels(plot_bench(bare, [], tmp_path / 'b.png', title='nano'))
    assert with_floor.shape == without.shape
    assert (with_floor != without).any()


def test_each_stage_has_its_colour(tmp_path):
    picture = pixels(plot_bench(BARS, [], tmp_path / 'c.png', title='nano')).reshape(-1, 3)
    for colour in ((0x56, 0xB4, 0xE9), (0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73)):
        assert (np.abs(picture - colour).sum(axis=1) == 0).sum() > 500


def test_no_step_counts_is_refused(tmp_path):
    with pytest.raises(BadInput, match='no step counts'):
        plot_bench([], [], tmp_path / 'd.png', title='nano')
