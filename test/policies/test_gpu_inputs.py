"""Frames of a tick -> the input on the GPU, on a stand-in: equal to the CPU's ImageInput."""

import numpy as np
import pytest
from camera_pictures import raw_frame
from gpu_stand_in import Cuda
from host_kernel import HostKernel

from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import cuda
from vla_trt_ros.policies.pi05.gpu_inputs import GpuImageInput, Written
from vla_trt_ros.policies.pi05.inputs import ImageInput
from vla_trt_ros.preprocess.cuda.images import ImageSpec, ImageWriter

VIEWS = ('base', 'wrist')


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    made = Cuda()
    monkeypatch.setattr(cuda, 'runtime', lambda: made)
    return made


@pytest.fixture
def out():
    return np.zeros((2, 3, 56, 56), np.float32)


@pytest.fixture
def images(out):
    return GpuImageInput(VIEWS, ImageSpec(2, 56, 56), out.ctypes.data, HostKernel(32))


def on_cpu(frames):
    pixels = np.zeros((2, 3, 56, 56), np.float32)
    ImageInput(VIEWS, pixels).write(frames)
    return pixels


@pytest.mark.parametrize('missing', [None, 'base', 'wrist'])
def test_the_input_is_the_cpu_s(images, out, missing):
    frames = {'base': raw_frame('bgr8', 48, 64), 'wrist': raw_frame('yuyv', 90, 40, noise=True)}
    frames.pop(missing, None)
    images.write(frames, stream=3)
    # One level of 255: Pillow may filter a tall picture in the other order.
    np.testing.assert_allclose(out, on_cpu(frames), rtol=0, atol=2.01 / 255)
    np.testing.assert_array_equal(out[0], on_cpu(frames)[0])


def test_frames_are_uploaded_as_they_arrive_or_when_they_are_needed(images, out, gpu):
    arrived = images.upload('base', raw_frame('rgb8', 48, 64))
    recorded = raw_frame('mono8', 20, 30)
    before = gpu.log.count('upload')
    written = images.write({'base': arrived, 'wrist': recorded}, stream=3)
    assert written == Written((True, True), 2, 48 * 64 * 3 + 20 * 30)
    images.write({'base': arrived}, stream=3)
    # The recorded one, and the filters of two sizes: two tables each.
    assert gpu.log.count('upload') - before == 1 + 4
    np.testing.assert_array_equal(out, on_cpu({'base': arrived}))


def test_a_camera_that_the_network_does_not_know_is_left_out(images, out):
    frames = {'base': raw_frame('rgb8', 48, 64), 'roof': raw_frame('rgb8', 8, 8)}
    assert images.upload('roof', frames['roof']) is frames['roof']
    assert images.write(frames, stream=3) == Written((True, False), 1, 48 * 64 * 3)
    np.testing.assert_array_equal(out, on_cpu({'base': frames['base']}))


def test_compact_puts_the_views_that_are_there_first(out):
    images = GpuImageInput(
        VIEWS, ImageSpec(2, 56, 56), out.ctypes.data, HostKernel(32), compact=True
    )
    wrist = raw_frame('rgb8', 48, 64)
    assert images.write({'wrist': wrist}, stream=3).there == (True, False)
    np.testing.assert_array_equal(out, on_cpu({'base': wrist}))
    pixels = np.zeros_like(out)
    on_host = ImageInput(VIEWS, pixels, compact=True)
    assert on_host.write({'wrist': wrist}) == (True, False)
    np.testing.assert_array_equal(out, pixels)
    both = {'base': raw_frame('bgr8', 30, 40), 'wrist': wrist}
    assert images.write(both, stream=3).there == (True, True)
    np.testing.assert_array_equal(out, on_cpu(both))


def test_a_frame_that_is_there_is_not_copied_again(images, gpu):
    arrived = images.upload('base', raw_frame('rgb8', 48, 64))
    before = gpu.log.count('upload')
    assert images.upload('base', arrived) is arrived
    assert gpu.log.count('upload') == before


def test_views_and_input_must_agree():
    with pytest.raises(BackendError, match='1 views for an input of 2: they must agree'):
        GpuImageInput(('base',), ImageSpec(2, 56, 56), 0, HostKernel(32))


@pytest.mark.parametrize('compact', [False, True], ids=['gaps', 'compact'])
def test_nothing_of_the_last_frames_stays_when_shapes_and_views_change(out, compact):
    spec = ImageSpec(2, 56, 56)
    images = GpuImageInput(VIEWS, spec, out.ctypes.data, HostKernel(32), compact=compact)
    wide, small = raw_frame('bgr8', 48, 64), raw_frame('mono8', 20, 30)
    yuv = raw_frame('yuyv', 30, 40, noise=True)
    for frames in (
        {'base': wide, 'wrist': yuv},
        {'base': yuv, 'wrist': wide},
        {'base': raw_frame('rgb8', 48, 64), 'wrist': wide},  # the same size, other bytes
        {'wrist': small},
        {'base': small},
        {'base': small, 'wrist': small},
        {'base': wide, 'wrist': yuv},
    ):
        images.write(frames, stream=3)
        fresh = np.zeros_like(out)
        GpuImageInput(VIEWS, spec, fresh.ctypes.data, HostKernel(32), compact=compact).write(
            frames, stream=3
        )
        np.testing.assert_array_equal(out, fresh)
        assert np.ptp(out) > 0.5


def test_two_inputs_of_one_writer_take_their_own_address():
    one, two = np.zeros((1, 3, 28, 28), np.float32), np.zeros((1, 3, 28, 28), np.float32)
    writer = ImageWriter(ImageSpec(1, 28, 28), HostKernel(32))
    source = GpuImageInput(('base',), ImageSpec(1, 28, 28), one.ctypes.data, HostKernel(32))
    first, second = (
        source.upload('base', raw_frame('rgb8', 30, 30, noise=noise)).gpu for noise in (0, 1)
    )
    writer.write([first], one.ctypes.data, 3)
    writer.write([second], two.ctypes.data, 3)
    assert np.abs(one - two).max() > 0.1
    again = one.copy()
    writer.write([first], one.ctypes.data, 3)
    np.testing.assert_array_equal(one, again)
