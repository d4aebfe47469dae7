"""images.cu, compiled as C++, pixel by pixel against OpenCV's decoding and NumPy's resize.

The GPU runs the same source (test/gpu/test_images_on_gpu.py); here its arithmetic is held to the
reference for every encoding, size, step and offset: equal, and to the CPU path within one level.
"""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
from camera_pictures import expected, in_place, planes, raw_frame
from gpu_stand_in import Cuda
from host_kernel import HostKernel

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.camera.encodings import ENCODINGS
from vla_trt_ros.errors import BackendError, ConfigError
from vla_trt_ros.gpu import cuda
from vla_trt_ros.gpu_frame import GpuFrame
from vla_trt_ros.preprocess.cuda.images import ImageSpec, ImageWriter, Target, View
from vla_trt_ros.preprocess.levels import SCALE, level_words
from vla_trt_ros.preprocess.resize import resize_reference, resize_with_pad

BITS = {'float32': 32, 'float16': 16, 'bfloat16': 16}


@pytest.fixture(autouse=True)
def host_gpu(monkeypatch):
    gpu = Cuda()
    monkeypatch.setattr(cuda, 'runtime', lambda: gpu)


def write(spec, frames):
    """The words that the kernel writes; what it does not write stays 0xAB."""
    words = level_words(spec.dtype).dtype
    out = np.full(spec.shape, 0, words)
    out.view(np.uint8)[...] = 0xAB
    writer = ImageWriter(spec, HostKernel(BITS[spec.dtype]))
    writer.write([f and in_place(f) for f in frames], out.ctypes.data, stream=0)
    return out


def levels(words):
    """int [H, W, 3] of float32 planes."""
    return np.rint((words.view(np.float32).transpose(1, 2, 0) + 1) * 127.5).astype(int)


SIZES = [
    (480, 640),  # a camera
    (640, 480),  # on its side: bars left and right
    (38, 102),  # up, odd
    (6, 4),  # far up
    (114, 110),  # almost there
    (112, 112),  # no resize
    (56, 56),  # twice
    (4, 1000),  # a line
    (720, 1280),
    (120, 40),  # tall: Pillow 13 begins with the columns
]


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('noise', [False, True], ids=['ramp', 'noise'])
@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_equal_to_the_reference_and_a_level_from_the_cpu_path(encoding, noise, height, width):
    frame = raw_frame(encoding, height, width, noise=noise)
    (out,) = write(ImageSpec(1, 112, 112), [frame])
    np.testing.assert_array_equal(out, expected(frame, 112, 112))
    on_cpu = resize_with_pad(to_rgb(frame), 112, 112).astype(int)
    assert np.abs(levels(out) - on_cpu).max() <= 1
    if height <= width:
        np.testing.assert_array_equal(levels(out), on_cpu)


@pytest.mark.parametrize('encoding', [e for e, row in ENCODINGS.items() if not row.even])
@pytest.mark.parametrize(('height', 'width'), [(1, 1), (37, 101), (3, 1000), (211, 113)])
def test_odd_sizes(encoding, height, width):
    frame = raw_frame(encoding, height, width, noise=True)
    (out,) = write(ImageSpec(1, 60, 80), [frame])
    np.testing.assert_array_equal(out, expected(frame, 60, 80))


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize(('pad', 'offset'), [(5, 0), (0, 3), (64, 1)])
def test_padded_rows_anywhere_in_memory(encoding, pad, offset):
    frame = raw_frame(encoding, 48, 64, pad=pad, offset=offset, noise=True)
    (out,) = write(ImageSpec(1, 28, 28), [frame])
    np.testing.assert_array_equal(out, expected(frame, 28, 28))


@pytest.mark.parametrize('encoding', ['rgb8', 'yuyv', 'bayer_grbg8'])
@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_within_one_level_of_the_float_reference(encoding, height, width):
    frame = raw_frame(encoding, height, width, noise=True)
    (out,) = write(ImageSpec(1, 112, 112), [frame])
    assert np.abs(levels(out) - resize_reference(to_rgb(frame), 112, 112)).max() <= 1


@pytest.mark.parametrize('encoding', ['uyvy', 'yuyv'])
def test_yuv_of_every_colour(encoding):
    # Every luma with a grid of U and V that has both ends and odd steps.
    luma, u, v = np.meshgrid(
        np.arange(256), np.r_[0:256:15, 255], np.r_[0:256:13, 255], indexing='ij'
    )
    pair = (u, luma, v, 255 - luma) if encoding == 'uyvy' else (luma, u, 255 - luma, v)
    data = np.stack(pair, -1).astype(np.uint8)
    height, width = 256, data[0].size // 2
    frame = raw_frame(encoding, height, width)
    frame.data[:] = data.reshape(-1)
    (out,) = write(ImageSpec(1, height, width), [frame])
    np.testing.assert_array_equal(out, planes(to_rgb(frame)))


@pytest.mark.parametrize('size', [(2, 2), (2, 8), (8, 2), (4, 4)])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_small_bayer(pattern, size):
    frame = raw_frame(f'bayer_{pattern}8', *size, noise=True)
    (out,) = write(ImageSpec(1, *size), [frame])
    np.testing.assert_array_equal(out, planes(to_rgb(frame)))


@pytest.mark.parametrize('dtype', BITS)
def test_views_of_unlike_cameras_and_a_missing_one(dtype):
    frames = [
        raw_frame('rgb8', 48, 64),
        None,
        raw_frame('yuv422', 90, 50, pad=4, noise=True),
        raw_frame('mono8', 28, 28),
    ]
    out = write(ImageSpec(4, 28, 28, dtype), frames)
    for words, frame in zip(out, frames, strict=True):
        if frame is None:
            assert (words == level_words(dtype)[0]).all()
        else:
            np.testing.assert_array_equal(words, expected(frame, 28, 28, dtype))


@pytest.mark.parametrize('row', [0, 608])
def test_patches_are_the_planes_cut_up(row):
    frames = [raw_frame('rgb8', 48, 64, noise=True), raw_frame('bgra8', 64, 48)]
    out = write(ImageSpec(2, 42, 56, 'bfloat16', patch=14, row=row), frames)
    assert out.shape == (2 * 3 * 4, row or 588)
    whole = np.stack([expected(f, 42, 56, 'bfloat16') for f in frames])
    cut = whole.reshape(2, 3, 3, 14, 4, 14).transpose(0, 2, 4, 1, 3, 5).reshape(24, 588)
    np.testing.assert_array_equal(out[:, :588], cut)
    assert (out[:, 588:] == 0xABAB).all()


def test_words_are_the_scale_of_the_cpu_path():
    ml_dtypes = pytest.importorskip('ml_dtypes')
    np.testing.assert_array_equal(level_words('float32').view(np.float32), SCALE)
    assert SCALE[[0, 255]].tolist() == [-1.0, 1.0]
    np.testing.assert_array_equal(
        level_words('float16').view(np.float16), SCALE.astype(np.float16)
    )
    np.testing.assert_array_equal(
        level_words('bfloat16'), SCALE.astype(ml_dtypes.bfloat16).view(np.uint16)
    )


def test_structures_are_as_long_as_the_kernel_s():
    assert ctypes.sizeof(View) == 80  # images.cu asserts the same
    assert ctypes.sizeof(Target) == 16


def test_one_launch_for_all_views():
    kernel = HostKernel(32)
    writer = ImageWriter(ImageSpec(2, 14, 14), kernel)
    out = np.zeros(writer.spec.shape, np.float32)
    for _ in range(3):
        frames = [in_place(raw_frame('rgb8', 20, 30)), in_place(raw_frame('rgb8', 30, 20))]
        writer.write(frames, out.ctypes.data, stream=0)
    assert kernel.launches == 3


def test_frames_are_awaited_before_and_released_after_the_launch():
    order = []
    lease = SimpleNamespace(
        wait=lambda stream: order.append(('wait', stream)),
        read=lambda stream: order.append(('read', stream)),
    )
    kernel = SimpleNamespace(launch=lambda *rest: order.append(('launch', rest[-1])))
    frame = in_place(raw_frame('rgb8', 20, 30))
    frame = GpuFrame(frame.address, 20, 30, 90, frame.layout, lease, 1, 1800)
    ImageWriter(ImageSpec(2, 14, 14), kernel).write([frame, None], 64, stream=5)
    assert order == [('wait', 5), ('launch', 5), ('read', 5)]


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'views': 0}, '0 views: one launch takes 1 to 8'),
        ({'views': 9}, '9 views: one launch takes 1 to 8'),
        ({'height': 0}, 'an image input of 28 x 0 has no pixels'),
        ({'patch': 5}, '28 x 28 pixels are not a multiple of patch 5'),
        ({'patch': 14, 'row': 587}, 'row 587 is shorter than a patch, 588'),
        ({'dtype': 'int8'}, "pixels of 'int8': choose float32, float16 or bfloat16"),
    ],
)
def test_wrong_specs(wrong, message):
    with pytest.raises(ConfigError, match=message):
        ImageSpec(**({'views': 1, 'height': 28, 'width': 28} | wrong))


def test_one_frame_for_two_views():
    with pytest.raises(BackendError, match='1 frames for 2 views: None is one missing'):
        ImageWriter(ImageSpec(2, 14, 14), HostKernel(32)).write([None], 0, 0)
