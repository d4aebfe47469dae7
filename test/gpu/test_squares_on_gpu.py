"""squares.cu on a real GPU: the letterbox byte for byte, crops within a level of OpenCV.

test/preprocess/cuda/test_squares_kernel.py holds the same source without a GPU.
"""

import numpy as np
import pytest
from camera_pictures import raw_frame
from gpu_there import needs_gpu

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.camera.encodings import ENCODINGS
from vla_trt_ros.camera.upload import CameraUpload
from vla_trt_ros.gpu import cuda
from vla_trt_ros.preprocess.crop import shrinks, stretch
from vla_trt_ros.preprocess.cuda.squares import SquareWriter
from vla_trt_ros.preprocess.letterbox import draw_letterbox, letterbox

pytestmark = needs_gpu

LEVELS = np.arange(768, dtype=np.float32).reshape(3, 256)
COLOURS = np.array([0, 256, 512], np.float32)[:, None, None]


class Square:
    """A square input on the GPU, and the levels in it, int [side, side, 3]."""

    def __init__(self, side):
        self.host = np.zeros((3, side, side), np.float32)
        self.device = cuda.DeviceBuffer(self.host.nbytes)
        self.stream = cuda.Stream()
        self.writer = SquareWriter(side, LEVELS)

    def read(self, gpu, write):
        gpu.lease.wait(self.stream.handle)
        write(self.device.address, self.stream.handle)
        gpu.lease.read(self.stream.handle)
        cuda.download(self.host, self.device.address, self.stream.handle)
        self.stream.wait()
        return (self.host - COLOURS).transpose(1, 2, 0).astype(int)


@pytest.mark.parametrize('mapped', [False, True], ids=['copied', 'mapped'])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_letterbox(encoding, mapped):
    camera, to = CameraUpload('base', mapped=mapped), Square(320)
    for height, width, pad in ((480, 640, 0), (640, 480, 8), (38, 102, 5), (320, 320, 0)):
        frame = raw_frame(encoding, height, width, pad=pad, noise=True)
        gpu, place = camera.put(frame).gpu, letterbox(width, height, 320)
        found = to.read(gpu, lambda *at, gpu=gpu, place=place: to.writer.fit(gpu, place, *at))
        wanted = np.empty((320, 320, 3), np.uint8)
        draw_letterbox(to_rgb(frame), place, wanted)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_crops(encoding):
    camera, to = CameraUpload('base'), Square(64)
    frame = raw_frame(encoding, 480, 640, noise=True)
    gpu, rgb = camera.put(frame).gpu, to_rgb(frame)
    for corners in ((0, 0, 640, 480), (10, 20, 138, 212), (600, 440, 640, 480), (7, 9, 108, 90)):
        found = to.read(gpu, lambda *at, at_=corners: to.writer.cut(gpu, at_, *at))
        wanted = stretch(rgb, corners, 64).astype(int)
        assert np.abs(found - wanted).max() <= 1
        if not shrinks(corners, 64):
            np.testing.assert_array_equal(found, wanted)


def test_float16():
    levels = np.linspace(-1, 1, 768, dtype=np.float16).reshape(3, 256)
    camera, stream = CameraUpload('base'), cuda.Stream()
    frame = raw_frame('rgb8', 48, 48, noise=True)
    gpu = camera.put(frame).gpu
    host = np.zeros((3, 48, 48), np.float16)
    device = cuda.DeviceBuffer(host.nbytes)
    gpu.lease.wait(stream.handle)
    writer = SquareWriter(48, levels)
    writer.fit(gpu, letterbox(48, 48, 48), device.address, stream.handle)
    cuda.download(host, device.address, stream.handle)
    stream.wait()
    for colour, plane in enumerate(host):
        np.testing.assert_array_equal(plane, levels[colour][to_rgb(frame)[..., colour]])
