"""The picture of floors: it opens again, and what is longer is drawn longer."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('matplotlib', reason='of the simulator extra: pip install .[sim]')

from vla_trt_ros.config import load_platform
from vla_trt_ros.errors import BadInput
from vla_trt_ros.planning.devices import find_device
from vla_trt_ros.planning.efficiency import Efficiency
from vla_trt_ros.planning.roofline import make_plan
from vla_trt_ros.policies.pi05.spec import PI05
from vla_trt_ros.viz import floor_plot
from vla_trt_ros.viz.floor_plot import plot_floors


def curve(name, counts=range(1, 11), shares=None):
    platform = load_platform(name)
    device = find_device('', platform.target)
    return [
        make_plan(
            PI05,
            platform,
            device,
            network='pi05',
            prompt_tokens=48,
            steps=n,
            efficiency=shares,
        )
        for n in counts
    ]


def area(path, stage):
    page = np.asarray(Image.open(path).convert('RGB')).astype(int)
    colour = floor_plot._STAGES[stage]
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    half = page[:, page.shape[1] // 2 :]
    return int((np.abs(half - wanted).max(axis=2) < 3).sum())


def test_the_bars_show_the_chosen_step_counts(tmp_path):
    one = plot_floors([curve('thor')], tmp_path / 'new' / 'one.png', steps=[1])
    ten = plot_floors([curve('thor')], tmp_path / 'ten.png', steps=[10])
    with Image.open(one) as page:
        assert page.width == 1430
    assert area(one, 'prefix') > 2 * area(one, 'denoise') > 1000
    assert area(ten, 'denoise') > 2 * area(ten, 'prefix') > 1000


def test_many_plans_make_a_taller_page(tmp_path):
    curves = [curve(name, range(1, 21)) for name in ('orin', 'thor', 'rtx', 'h200')]
    path = plot_floors(curves, tmp_path / 'all.png', steps=[1, 3, 10, 20])
    with Image.open(path) as page:
        assert page.height > 600


def test_predictions_are_drawn_beside_the_floors(tmp_path):
    shares = Efficiency(vision=0.5, prefix=0.5, denoise=0.5)
    bare = plot_floors([curve('thor')], tmp_path / 'bare.png', steps=[10])
    dashed = plot_floors([curve('thor', shares=shares)], tmp_path / 'dashed.png', steps=[10])
    assert bare.read_bytes() != dashed.read_bytes()


@pytest.mark.parametrize('curves', [[], [[]]])
def test_nothing_to_draw_is_refused(tmp_path, curves):
    with pytest.raises(BadInput, match='no plans: a plot needs one at least'):
        plot_floors(curves, tmp_path / 'a.png', steps=[1])
