"""images.cu and the upload on a real GPU: equal to the reference, one copy a frame, none after.

test/preprocess/cuda and test/camera/test_upload.py hold the same source and logic without a GPU.
"""

import numpy as np
import pytest
from camera_pictures import expected, raw_frame
from gpu_there import needs_gpu

from vla_trt_ros.camera.encodings import ENCODINGS
from vla_trt_ros.camera.upload import CameraUpload
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import cuda, kernels
from vla_trt_ros.preprocess.cuda.images import SOURCE, ImageSpec, ImageWriter
from vla_trt_ros.preprocess.levels import level_words

pytestmark = needs_gpu


class Input:
    """The network's input on the GPU, and what is in it."""

    def __init__(self, spec):
        self.spec = spec
        self.host = np.zeros(spec.shape, level_words(spec.dtype).dtype)
        self.device = cuda.DeviceBuffer(self.host.nbytes)
        self.stream = cuda.Stream()
        self.writer = ImageWriter(spec)

    def write(self, frames):
        self.writer.write([f and f.gpu for f in frames], self.device.address, self.stream.handle)

    def read(self):
        cuda.download(self.host, self.device.address, self.stream.handle)
        self.stream.wait()
        return self.host.copy()


@pytest.mark.parametrize('mapped', [False, True], ids=['copied', 'mapped'])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_equal_to_the_reference(encoding, mapped):
    camera, to = CameraUpload('base', mapped=mapped), Input(ImageSpec(1, 224, 224))
    for height, width, pad in ((480, 640, 0), (640, 480, 8), (38, 102, 5), (224, 224, 0)):
        frame = raw_frame(encoding, height, width, pad=pad, noise=True)
        to.write([camera.put(frame)])
        np.testing.assert_array_equal(to.read()[0], expected(frame, 224, 224))


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
def test_three_views_one_missing_as_patches(dtype):
    spec = ImageSpec(3, 224, 224, dtype, patch=14, row=592)
    to = Input(spec)
    frames = [raw_frame('rgb8', 480, 640), None, raw_frame('yuyv', 720, 1280, noise=True)]
    sent = [f and CameraUpload(str(i)).put(f) for i, f in enumerate(frames)]
    to.write(sent)
    planes = np.stack(
        [
            expected(f, 224, 224, dtype)
            if f
            else np.full((3, 224, 224), level_words(dtype)[0], level_words(dtype).dtype)
            for f in frames
        ]
    )
    cut = planes.reshape(3, 3, 16, 14, 16, 14).transpose(0, 2, 4, 1, 3, 5).reshape(768, 588)
    out = to.read()
    np.testing.assert_array_equal(out[:, :588], cut)
    assert not out[:, 588:].any()


def test_one_upload_a_frame_and_none_between_stages():
    cameras = [CameraUpload('base'), CameraUpload('wrist')]
    to = Input(ImageSpec(2, 224, 224))
    to.writer.prepare(480, 640)
    frames = [raw_frame('rgb8', 480, 640, noise=True), raw_frame('bgr8', 480, 640)]
    copies = 0 if cuda.is_integrated() else 1
    for _ in range(20):
        before = cuda.traffic.uploads, cuda.traffic.upload_bytes
        sent = [camera.put(f) for camera, f in zip(cameras, frames, strict=True)]
        after = cuda.traffic.uploads, cuda.traffic.upload_bytes
        assert after[0] - before[0] == 2 * copies
        assert after[1] - before[1] == 2 * copies * 480 * 640 * 3
        to.write(sent)
        to.stream.wait()
        assert (cuda.traffic.uploads, cuda.traffic.upload_bytes) == after


@pytest.mark.parametrize('mapped', [False, True], ids=['copied', 'mapped'])
def test_frames_are_not_overwritten_while_they_are_read(mapped):
    # 60 frames queued without waiting, through a ring of four places.
    camera = CameraUpload('base', mapped=mapped)
    spec = ImageSpec(1, 224, 224)
    writer, stream = ImageWriter(spec), cuda.Stream()
    outs = [cuda.DeviceBuffer(int(np.prod(spec.shape)) * 4) for _ in range(60)]
    frame = raw_frame('rgb8', 720, 1280)
    for i, out in enumerate(outs):
        frame.data[:] = 4 * i
        writer.write([camera.put(frame).gpu], out.address, stream.handle)
    host = np.zeros(spec.shape, np.float32)
    for i, out in enumerate(outs):
        cuda.download(host, out.address, stream.handle)
        stream.wait()
        levels = np.unique(np.round((host[0, :, 49:175] + 1) * 127.5))
        assert levels.tolist() == [4 * i]


def test_no_memory_is_taken_while_it_runs():
    camera, to = CameraUpload('base'), Input(ImageSpec(1, 224, 224))
    frame = raw_frame('rgb8', 720, 1280)

    def free():
        return cuda.check(cuda.runtime().cudaMemGetInfo(), 'asking for memory')[0]

    for i in range(100):
        to.write([camera.put(frame)])
        to.stream.wait()
        if i == 10:
            before = free()
    assert free() == before


def test_a_second_start_does_not_compile(monkeypatch):
    kernels.Kernel(SOURCE, 'write_images_32')

    def refuse(*rest):
        raise AssertionError('compiled again')

    monkeypatch.setattr(kernels, 'compile_source', refuse)
    kernels.Kernel(SOURCE, 'write_images_16')


def test_a_kernel_that_is_not_in_the_file():
    with pytest.raises(BackendError, match=r'finding nothing in images.cu: CUDA says CUDA_ERROR'):
        kernels.Kernel(SOURCE, 'nothing')
