"""The picture of one moment opens again, and shows what it was given."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('matplotlib', reason='of the simulator extra: pip install .[sim]')

from vla_trt_ros.viz.boxes import Box, colour_of
from vla_trt_ros.viz.scene_plot import Snapshot, plot_scene
from vla_trt_ros.viz.tip_path import EARLY, LATE

PICTURE = np.full((60, 80, 3), 120, np.uint8)
BOX = Box(20, 15, 60, 45, 'cup 0.90', 'cup')
PATH = np.cumsum(np.full((10, 3), 0.01), axis=0)


def pixels_of(path, rgb):
    page = np.asarray(Image.open(path).convert('RGB')).astype(int)
    return int((np.abs(page - np.array(rgb)).max(axis=2) < 6).sum())


def test_boxes_and_path_are_there(tmp_path):
    snapshot = Snapshot({'base': PICTURE, 'wrist': PICTURE}, {'base': [BOX]}, PATH, 'running')
    path = plot_scene(snapshot, tmp_path / 'new' / 'scene.png')
    with Image.open(path) as page:
        assert page.size == (1380, 520)
    assert pixels_of(path, colour_of('cup')) > 300
    for colour in (EARLY, LATE):
        assert pixels_of(path, np.array(colour) * 255) > 10


def test_no_boxes_no_path_one_camera(tmp_path):
    snapshot = Snapshot({'base': PICTURE}, {}, np.empty((0, 3)), '')
    path = plot_scene(snapshot, tmp_path / 'scene.png')
    assert pixels_of(path, colour_of('cup')) == 0
    assert pixels_of(path, (120, 120, 120)) > 10_000


def test_path_of_one_row(tmp_path):
    snapshot = Snapshot({'base': PICTURE}, {'base': []}, PATH[:1], 'about to end')
    path = plot_scene(snapshot, tmp_path / 'scene.png')
    assert pixels_of(path, np.array(EARLY) * 255) > 10
