"""squares.cu, compiled as C++, against OpenCV: the letterbox byte for byte, crops within a level.

The GPU runs the same source (test/gpu/test_squares_on_gpu.py).
"""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
from camera_pictures import in_place, raw_frame
from gpu_stand_in import Cuda
from host_kernel import HostSquares

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.camera.encodings import ENCODINGS
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.gpu import cuda
from vla_trt_ros.preprocess.crop import stretch
from vla_trt_ros.preprocess.cuda.squares import Cut, SquareWriter
from vla_trt_ros.preprocess.letterbox import draw_letterbox, letterbox

LEVELS = np.arange(768, dtype=np.float32).reshape(3, 256)
"""Each level of each colour is told apart: red is itself, green 256 more, blue 512 more."""
COLOURS = np.array([0, 256, 512], np.float32)[:, None, None]
SIZES = [
    (480, 640),  # a camera, exactly half of it for 320
    (640, 480),  # on its side: bars left and right
    (38, 102),  # up, odd
    (6, 4),  # far up
    (113, 110),  # almost there
    (112, 112),  # no resize
    (56, 56),  # twice
    (4, 1000),  # a line: one row of the square
    (720, 1280),
    (121, 39),
    (1, 1),
]


@pytest.fixture(autouse=True)
def host_gpu(monkeypatch):
    gpu = Cuda()
    monkeypatch.setattr(cuda, 'runtime', lambda: gpu)


def even(encoding, height, width):
    """The next size that the encoding has."""
    return (
        (height + height % 2, width + width % 2) if ENCODINGS[encoding].even else (height, width)
    )


def fitted(frame, side):
    """What the kernel makes of all of ``frame``: levels, int [side, side, 3]."""
    out = np.full((3, side, side), -1, np.float32)
    place = letterbox(frame.width, frame.height, side)
    SquareWriter(side, LEVELS, HostSquares()).fit(in_place(frame), place, out.ctypes.data, 0)
    return (out - COLOURS).transpose(1, 2, 0).astype(int)


def cut(frame, corners, side):
    out = np.full((3, side, side), -1, np.float32)
    SquareWriter(side, LEVELS, HostSquares()).cut(in_place(frame), corners, out.ctypes.data, 0)
    return (out - COLOURS).transpose(1, 2, 0).astype(int)


def drawn(frame, side):
    square = np.empty((side, side, 3), np.uint8)
    draw_letterbox(to_rgb(frame), letterbox(frame.width, frame.height, side), square)
    return square


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('noise', [False, True], ids=['ramp', 'noise'])
@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_letterbox_is_opencv_s_byte_for_byte(encoding, noise, height, width):
    frame = raw_frame(encoding, *even(encoding, height, width), noise=noise)
    np.testing.assert_array_equal(fitted(frame, 112), drawn(frame, 112))


@pytest.mark.parametrize('side', [32, 224, 320, 641])
@pytest.mark.parametrize(('height', 'width'), [(480, 640), (360, 641), (97, 31)])
def test_letterbox_of_other_squares(side, height, width):
    frame = raw_frame('rgb8', height, width, noise=True)
    np.testing.assert_array_equal(fitted(frame, side), drawn(frame, side))


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize(('pad', 'offset'), [(5, 0), (0, 3), (64, 1)])
def test_padded_rows_anywhere_in_memory(encoding, pad, offset):
    frame = raw_frame(encoding, 48, 64, pad=pad, offset=offset, noise=True)
    np.testing.assert_array_equal(fitted(frame, 28), drawn(frame, 28))


CORNERS = [
    (0, 0, 160, 120),  # all of it, down
    (100, 7, 104, 11),  # the smallest one, far up
    (3, 5, 35, 37),  # as it is
    (0, 0, 64, 64),  # exactly half
    (20, 10, 116, 74),  # thrice and twice
    (30, 20, 131, 93),  # down by no whole number
    (90, 60, 160, 120),  # at the lower right
    (10, 10, 150, 30),  # down one way, up the other
    (0, 0, 33, 33),  # hardly smaller
    (150, 20, 160, 110),  # narrow and tall
]


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('noise', [False, True], ids=['ramp', 'noise'])
@pytest.mark.parametrize('corners', CORNERS, ids=str)
def test_crops_are_opencv_s_within_a_level(encoding, noise, corners):
    frame = raw_frame(encoding, 120, 160, noise=noise)
    found, wanted = cut(frame, corners, 32), stretch(to_rgb(frame), corners, 32).astype(int)
    assert np.abs(found - wanted).max() <= 1
    assert (found != wanted).mean() < 0.01
    if min(corners[2] - corners[0], corners[3] - corners[1]) < 32:  # bilinear: whole numbers
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_levels_are_looked_up_colour_by_colour(dtype):
    frame = raw_frame('bgr8', 40, 40, noise=True)
    levels = np.random.default_rng(3).normal(size=(3, 256)).astype(dtype)
    out = np.full((3, 40, 40), np.nan, dtype)
    kernel = HostSquares(levels.dtype.itemsize * 8)
    place = letterbox(40, 40, 40)
    SquareWriter(40, levels, kernel).fit(in_place(frame), place, out.ctypes.data, 0)
    rgb = to_rgb(frame)
    for colour in range(3):
        np.testing.assert_array_equal(out[colour], levels[colour][rgb[..., colour]])
    assert kernel.launches == 1


def test_nothing_is_written_outside_of_the_square():
    frame = raw_frame('rgb8', 30, 20)
    memory = np.full(3 * 33 * 33 + 20, -1, np.float32)
    SquareWriter(33, LEVELS, HostSquares()).fit(
        in_place(frame), letterbox(20, 30, 33), memory[10:].ctypes.data, 0
    )
    assert (memory[:10] == -1).all()
    assert (memory[-10:] == -1).all()
    assert (memory[10:-10] >= 0).all()


def test_it_is_queued_where_the_caller_says():
    launched = []
    kernel = SimpleNamespace(launch=lambda *rest: launched.append(rest))
    frame = in_place(raw_frame('rgb8', 30, 20))
    SquareWriter(64, LEVELS, kernel).fit(frame, letterbox(20, 30, 64), 4096, 7)
    ((grid, block, (_, _, out), stream),) = launched
    assert (grid, block, out.value, stream) == ((2, 16, 1), (32, 4, 1), 4096, 7)


def test_the_structure_is_as_long_as_the_kernel_s():
    assert ctypes.sizeof(Cut) == 104  # squares.cu asserts the same


@pytest.mark.parametrize('levels', [np.zeros(256, np.float32), np.zeros((3, 256))])
def test_wrong_levels(levels):
    with pytest.raises(ConfigError, match=r'levels are float.* float32 or float16 \[3, 256\]'):
        SquareWriter(32, levels, HostSquares())
