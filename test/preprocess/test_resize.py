import numpy as np
import pytest

from vla_trt_ros.errors import BadImage
from vla_trt_ros.preprocess.resize import fit, resize_reference, resize_with_pad, triangle_filter

SIZES = [
    (480, 640, 112, 112),  # a camera
    (640, 480, 112, 112),  # on its side
    (720, 1280, 224, 224),
    (37, 101, 112, 112),  # up, odd
    (7, 5, 112, 112),  # far up
    (113, 111, 112, 112),  # almost there
    (224, 224, 112, 112),  # no pad
    (56, 56, 112, 112),
    (3, 1000, 112, 112),  # a line
    (1, 1, 14, 14),
    (100, 100, 60, 80),  # a target that is not square
]


def picture(height, width):
    """A ramp along each axis, and one bright corner."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 // width, y * 255 // height, (3 * x + 5 * y) % 256], axis=-1)
    image[: max(1, height // 8), : max(1, width // 8)] = 255
    return image.astype(np.uint8)


@pytest.mark.parametrize(('h', 'w', 'height', 'width'), SIZES)
def test_within_one_level_of_the_float_reference(h, w, height, width):
    image = picture(h, w)
    fast = resize_with_pad(image, height, width)
    assert fast.shape == (height, width, 3)
    assert fast.dtype == np.uint8
    assert np.abs(fast - resize_reference(image, height, width)).max() <= 1.0


@pytest.mark.parametrize(('h', 'w', 'height', 'width'), SIZES)
def test_noise_within_one_level_too(h, w, height, width):
    image = np.random.default_rng(h * w).integers(0, 256, (h, w, 3), dtype=np.uint8)
    fast = resize_with_pad(image, height, width)
    assert np.abs(fast - resize_reference(image, height, width)).max() <= 1.0


def test_pad_is_black_and_centred():
    out = resize_with_pad(np.full((50, 100, 3), 200, np.uint8), 100, 100)
    assert (out[25:75] == 200).all()
    assert (out[:25] == 0).all()
    assert (out[75:] == 0).all()


def test_odd_pad_goes_below_and_right():
    assert fit(3, 4, 8, 8) == (6, 8, 1, 0)
    assert fit(5, 8, 8, 8) == (5, 8, 1, 0)
    assert fit(8, 5, 8, 8) == (8, 5, 0, 1)


def test_bright_corner_stays_in_its_corner():
    image = np.zeros((96, 128, 3), np.uint8)
    image[:12, -16:] = 255
    out = resize_with_pad(image, 64, 64)
    assert (out[8:13, 57:] == 255).all()
    assert out[:8].max() == 0
    assert out[15:].max() == 0
    assert out[:, :54].max() == 0


def test_shrinking_averages_instead_of_picking():
    checkers = np.zeros((64, 64, 3), np.uint8)
    checkers[::2, 1::2] = 255
    checkers[1::2, ::2] = 255
    out = resize_with_pad(checkers, 16, 16)
    assert out[2:-2, 2:-2].min() >= 126
    assert out[2:-2, 2:-2].max() <= 129


def test_same_size_is_returned_as_it_is():
    image = picture(112, 112)
    assert resize_with_pad(image, 112, 112) is image


def test_views_of_padded_or_flipped_memory():
    padded = np.zeros((48, 70, 3), np.uint8)
    padded[:, :64] = picture(48, 64)
    flipped = picture(48, 64)[:, :, ::-1]
    expected = resize_with_pad(picture(48, 64), 32, 32)
    np.testing.assert_array_equal(resize_with_pad(padded[:, :64], 32, 32), expected)
    np.testing.assert_array_equal(resize_with_pad(flipped, 32, 32), expected[:, :, ::-1])


def test_read_only_input_is_left_alone():
    image = picture(48, 64)
    image.flags.writeable = False
    assert resize_with_pad(image, 32, 32).shape == (32, 32, 3)


@pytest.mark.parametrize('shape', [(0, 640, 3), (480, 0, 3)])
def test_image_without_pixels(shape):
    with pytest.raises(BadImage, match='has nothing to resize'):
        resize_with_pad(np.zeros(shape, np.uint8), 112, 112)


def test_filter_weights_by_hand():
    # 4 -> 2: centres at 1 and 3, a triangle that reaches 2 to either side.
    np.testing.assert_allclose(
        triangle_filter(4, 2), np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7.0, atol=1e-12
    )
    # 2 -> 4: centres at 0.25, 0.75, 1.25, 1.75, a triangle that reaches 1.
    np.testing.assert_allclose(
        triangle_filter(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], atol=1e-12
    )
