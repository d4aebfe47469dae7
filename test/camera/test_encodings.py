"""Every encoding, from a small image whose RGB a reader can check."""

import cv2
import numpy as np
import pytest
from fakes import image_msg

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.camera.encodings import ENCODINGS
from vla_trt_ros.errors import BadImage, UnknownEncoding
from vla_trt_ros.messages import frame_from_compressed, frame_from_image

# A colour of its own in each corner: swapped channels, rows or columns all show.
RGB = np.array(
    [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 200, 90]]],
    dtype=np.uint8,
)
GREY = np.array([[0, 80], [160, 255]], dtype=np.uint8)


def alpha(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full(rgb.shape[:2], 7, np.uint8)])


EXACT = {
    'rgb8': (RGB, RGB),
    'bgr8': (RGB[..., ::-1], RGB),
    'rgba8': (alpha(RGB), RGB),
    'bgra8': (alpha(RGB[..., ::-1]), RGB),
    'mono8': (GREY, np.repeat(GREY[..., None], 3, axis=2)),
    '8UC1': (GREY, np.repeat(GREY[..., None], 3, axis=2)),
    '8UC3': (RGB[..., ::-1], RGB),
}


@pytest.mark.parametrize('encoding', EXACT)
@pytest.mark.parametrize('pad', [0, 5])
def test_exact_encodings(encoding, pad):
    pixels, rgb = EXACT[encoding]
    frame = frame_from_image(image_msg(pixels, encoding, pad=pad), receive_ns=1)
    np.testing.assert_array_equal(to_rgb(frame), rgb)


# BT.601 studio swing: white, black, and pure red (Y 81, U 90, V 240), two pixels wide each.
YUV = {'white': (235, 128, 128), 'black': (16, 128, 128), 'red': (81, 90, 240)}
YUV_RGB = {'white': (255, 255, 255), 'black': (0, 0, 0), 'red': (255, 0, 0)}


@pytest.mark.parametrize('encoding', ['yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'])
@pytest.mark.parametrize('pad', [0, 6])
def test_yuv422(encoding, pad):
    luma_first = encoding in ('yuv422_yuy2', 'yuyv')
    row = []
    for y, u, v in YUV.values():
        row += [y, u, y, v] if luma_first else [u, y, v, y]
    pixels = np.array([row, row], np.uint8).reshape(2, 6, 2)
    rgb = to_rgb(frame_from_image(image_msg(pixels, encoding, pad=pad), receive_ns=1))
    expected = np.repeat(np.array(list(YUV_RGB.values())), 2, axis=0)
    np.testing.assert_allclose(rgb[0].astype(int), expected, atol=3)


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('colour', [(240, 20, 20), (20, 240, 20), (20, 20, 240)])
def test_bayer_of_one_colour_gives_that_colour(pattern, colour):
    tile = np.array([colour['rgb'.index(c)] for c in pattern], np.uint8).reshape(2, 2)
    mosaic = np.tile(tile, (4, 5))
    frame = frame_from_image(image_msg(mosaic, f'bayer_{pattern}8', pad=3), receive_ns=1)
    rgb = to_rgb(frame)
    assert rgb.shape == (8, 10, 3)
    np.testing.assert_array_equal(rgb[2:-2, 2:-2], np.broadcast_to(colour, (4, 6, 3)))


def test_every_row_of_the_table_is_tested():
    tested = set(EXACT) | {'yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'}
    tested |= {f'bayer_{p}8' for p in ('rggb', 'bggr', 'gbrg', 'grbg')}
    assert tested == set(ENCODINGS)


def test_rgb8_is_a_view_of_the_message():
    msg = image_msg(RGB, 'rgb8', pad=4)
    assert np.shares_memory(to_rgb(frame_from_image(msg, receive_ns=1)), msg.data)


def compressed(kind: str, pixels: np.ndarray):
    ok, data = cv2.imencode(f'.{kind}', pixels[..., ::-1])
    assert ok
    msg = image_msg(pixels, 'rgb8')
    msg.format = f'bgr8; {kind} compressed bgr8'
    msg.data = data.reshape(-1)
    return msg


def test_png_is_exact():
    frame = frame_from_compressed(compressed('png', RGB), receive_ns=1)
    np.testing.assert_array_equal(to_rgb(frame), RGB)


def test_jpeg_is_close_and_in_order():
    ramp = np.zeros((32, 48, 3), np.uint8)
    ramp[:, :, 0] = np.linspace(0, 255, 48)
    ramp[:, :, 2] = np.linspace(255, 0, 32)[:, None]
    msg = compressed('jpeg', ramp)
    assert abs(to_rgb(frame_from_compressed(msg, 1)).astype(int) - ramp).mean() < 4


def test_unknown_encoding_names_itself_and_the_known_ones():
    with pytest.raises(UnknownEncoding, match=r"'32FC1' is unknown; known: rgb8, bgr8"):
        frame_from_image(image_msg(RGB, '32FC1'), receive_ns=1)


def test_truncated_image():
    msg = image_msg(RGB, 'rgb8', pad=2)
    msg.data = msg.data[:13]
    with pytest.raises(BadImage, match=r'holds 13 bytes.*needs 14.*truncated'):
        frame_from_image(msg, receive_ns=1)


def test_last_row_may_lack_its_padding():
    msg = image_msg(RGB, 'rgb8', pad=2)
    msg.data = msg.data[:14]
    np.testing.assert_array_equal(to_rgb(frame_from_image(msg, receive_ns=1)), RGB)


def test_step_shorter_than_a_row():
    msg = image_msg(RGB, 'rgb8')
    msg.step = 5
    with pytest.raises(BadImage, match='step 5 is shorter than a row'):
        frame_from_image(msg, receive_ns=1)


def test_zero_size():
    msg = image_msg(RGB, 'rgb8')
    msg.width = 0
    with pytest.raises(BadImage, match='0 x 2'):
        frame_from_image(msg, receive_ns=1)


def test_unstamped():
    with pytest.raises(BadImage, match='stamp is zero'):
        frame_from_image(image_msg(RGB, 'rgb8', stamp_ns=0), receive_ns=1)


def test_odd_width_of_422():
    frame = frame_from_image(image_msg(np.ones((2, 3, 2), np.uint8), 'yuv422'), receive_ns=1)
    with pytest.raises(BadImage, match='must be even'):
        to_rgb(frame)


def test_broken_jpeg():
    msg = compressed('jpeg', RGB)
    msg.data = msg.data[:20]
    with pytest.raises(BadImage, match='jpeg image of 20 bytes does not decode'):
        to_rgb(frame_from_compressed(msg, receive_ns=1))


def test_unknown_compressed_format():
    msg = compressed('png', RGB)
    msg.format = 'h264'
    with pytest.raises(BadImage, match="'h264' is unknown; known: jpeg, png"):
        frame_from_compressed(msg, receive_ns=1)
