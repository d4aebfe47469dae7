from types import SimpleNamespace as Msg

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('matplotlib', reason='of the simulator extra: pip install .[sim]')

from vla_trt_ros.errors import BadInput
from vla_trt_ros.viz import timing_plot
from vla_trt_ros.viz.timing_plot import STAGES, TimingRecord, plot_timing, record_from_msg


def records(n, denoise=12.0):
    return [
        TimingRecord(
            time=50.0 + 0.05 * k,
            stages_ms={'vision': 9.0, 'denoise': denoise + k % 3},
            end_to_end_ms=40.0 + k % 7,
            image_age_ms={'base': 15.0 + k % 4, 'wrist': 20.0},
        )
        for k in range(n)
    ]


def has_colour(path, name):
    page = np.asarray(Image.open(path).convert('RGB')).astype(int)
    wanted = [int(timing_plot._COLOURS[name][i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(page - wanted).max(axis=2) < 3).sum())


@pytest.mark.parametrize('n', [2, 50, 1000])
def test_the_plot_opens_again_and_shows_the_stages(tmp_path, n):
    path = plot_timing(records(n), tmp_path / 'new' / 'timing.png', title='nano on 2 cores')
    with Image.open(path) as page:
        assert page.size == (1320, 880)
    assert has_colour(path, 'vision') > 1000
    assert has_colour(path, 'denoise') > 1000
    assert has_colour(path, 'preprocess') < has_colour(path, 'vision')


def test_a_slower_stage_is_a_larger_area(tmp_path):
    fast = plot_timing(records(50, denoise=2.0), tmp_path / 'fast.png', title='fast')
    slow = plot_timing(records(50, denoise=40.0), tmp_path / 'slow.png', title='slow')
    assert has_colour(slow, 'denoise') > 1.5 * has_colour(fast, 'denoise')


def test_order_and_missing_cameras_do_not_matter(tmp_path):
    mixed = records(40)[::-1]
    mixed[3] = TimingRecord(mixed[3].time, {}, 41.0, {'base': 16.0})
    assert plot_timing(mixed, tmp_path / 'a.png', title='mixed').stat().st_size > 10_000
    bare = [TimingRecord(float(k), {'vision': 5.0}, 9.0, {}) for k in range(3)]
    assert plot_timing(bare, tmp_path / 'b.png', title='no cameras').exists()


@pytest.mark.parametrize('n', [0, 1])
def test_too_few_chunks_are_refused(tmp_path, n):
    with pytest.raises(BadInput, match=f'{n} timing records: a plot needs at least 2'):
        plot_timing(records(n), tmp_path / 'a.png', title='empty')


def test_a_message_becomes_a_record():
    fields = {f'{stage}_ms': float(k + 1) for k, stage in enumerate(STAGES)}
    msg = Msg(
        header=Msg(stamp=Msg(sec=7, nanosec=500_000_000)),
        end_to_end_ms=44.0,
        camera_names=['base', 'wrist'],
        image_age_ms=[15.0, 21.0],
        **fields,
    )
    record = record_from_msg(msg)
    assert record.time == 7.5
    assert record.stages_ms['preprocess'] == 1.0
    assert record.stages_ms['wait'] == float(len(STAGES))
    assert record.image_age_ms == {'base': 15.0, 'wrist': 21.0}
    assert record.end_to_end_ms == 44.0
