import numpy as np
import pytest

from vla_trt_ros.errors import BadImage
from vla_trt_ros.preprocess.letterbox import GREY, draw_letterbox, letterbox

SIZES = [
    (640, 480),
    (480, 640),
    (224, 224),
    (320, 320),
    (1280, 720),
    (33, 17),
    (641, 479),
    (7, 300),
]


def ramp(width, height):
    """Colours that no flip, shift or swapped channel leaves as they are."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    picture = np.stack((x * 255 // width, y * 255 // height, (x + 2 * y) % 256), axis=2)
    picture[0, 0] = 255, 0, 255
    return picture.astype(np.uint8)


def drawn(image, side):
    square = np.full((side, side, 3), 7, np.uint8)
    place = letterbox(image.shape[1], image.shape[0], side)
    draw_letterbox(image, place, square)
    return place, square


def test_a_wide_picture_lies_between_two_grey_bars():
    place, square = drawn(ramp(640, 480), 320)
    assert (place.new_width, place.new_height, place.left, place.top) == (320, 240, 0, 40)
    assert (square[:40] == GREY).all()
    assert (square[280:] == GREY).all()
    assert not (square[40:280] == GREY).all(axis=2).any()
    assert square[45, 310, 0] > 240 > 20 > square[45, 310, 1]


def test_a_picture_of_the_right_size_is_copied():
    image = ramp(320, 320)
    assert (drawn(image, 320)[1] == image).all()


def test_a_small_picture_is_enlarged():
    place, square = drawn(ramp(33, 17), 320)
    assert (place.new_width, place.new_height) == (320, 165)
    assert not (square == 7).all(axis=2).any()


@pytest.mark.parametrize(('width', 'height'), SIZES)
def test_boxes_go_to_the_square_and_back(width, height):
    boxes = np.array([[0, 0, width, height], [1, 2, width - 1, height - 2]], np.float32)
    place = letterbox(width, height, 320)
    in_square = place.to_square(boxes)
    corners = (place.left, place.top, place.left + place.new_width, place.top + place.new_height)
    assert in_square[0] == pytest.approx(corners)
    assert place.to_picture(in_square) == pytest.approx(boxes, abs=1e-3)


def test_boxes_are_cut_off_at_the_edges_of_the_picture():
    place = letterbox(640, 480, 320)
    found = place.to_picture(np.array([[-5, 0, 400, 320]], np.float32))
    assert found.tolist() == [[0, 0, 640, 480]]


def test_a_picture_thinner_than_a_pixel_of_the_square_keeps_one():
    place, square = drawn(ramp(2000, 2), 320)
    assert place.new_height == 1
    assert (square[place.top + 1 :] == GREY).all()


@pytest.mark.parametrize(('width', 'height'), [(0, 10), (10, 0)])
def test_no_pixels(width, height):
    with pytest.raises(BadImage, match=f'{width} x {height} pixels has nothing to resize'):
        letterbox(width, height, 320)


@pytest.mark.parametrize(('width', 'height'), SIZES)
def test_it_is_ultralytics_own(width, height):
    pytest.importorskip('ultralytics', reason="workshop only: pip install '.[detectors]'")
    import torch
    from ultralytics.data.augment import LetterBox
    from ultralytics.utils.ops import scale_boxes

    image = ramp(width, height)
    place, square = drawn(image, 320)
    assert (square == LetterBox((320, 320), auto=False)(image=image)).all()
    boxes = np.array([[3, 50, 300, 270], [-20, 10, 330, 311]], np.float32)
    theirs = scale_boxes((320, 320), torch.from_numpy(boxes.copy()), (height, width)).numpy()
    assert place.to_picture(boxes) == pytest.approx(theirs, abs=1e-3)
