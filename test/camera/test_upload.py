"""CameraFrame -> GPU: the CPU path's checks, one copy, and the same pixels in the network's input.

The GPU is a stand-in that runs as late as it may; the kernel is the real source on the processor.
"""

import cv2
import numpy as np
import pytest
from camera_pictures import expected, picture, raw_frame
from gpu_stand_in import LazyCuda
from host_kernel import HostKernel, Queued

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.camera.encodings import ENCODINGS
from vla_trt_ros.camera.upload import PLACES, CameraUpload
from vla_trt_ros.datatypes import NS, CameraFrame
from vla_trt_ros.errors import BadImage, UnknownEncoding
from vla_trt_ros.gpu import cuda
from vla_trt_ros.preprocess.cuda.images import ImageSpec, ImageWriter

STREAM = 7


@pytest.fixture
def gpu(monkeypatch):
    made = LazyCuda()
    monkeypatch.setattr(cuda, 'runtime', lambda: made)
    return made


def queued(gpu):
    return Queued(gpu, HostKernel(32))


def bits(frame):
    return expected(frame, 56, 56).view(np.float32)


def compressed(kind):
    ok, data = cv2.imencode(f'.{kind}', picture(48, 64, 3))
    assert ok
    return CameraFrame(NS, NS, 'camera', kind, 0, 0, 0, data.reshape(-1))


@pytest.mark.parametrize('mapped', [False, True])
def test_every_encoding_from_message_to_input(gpu, mapped):
    camera = CameraUpload('base', mapped=mapped)
    writer = ImageWriter(ImageSpec(1, 56, 56), queued(gpu))
    out = np.zeros((1, 3, 56, 56), np.float32)
    frames = [raw_frame(encoding, 48, 64, pad=6, noise=True) for encoding in ENCODINGS]
    frames += [compressed('jpeg'), compressed('png'), raw_frame('rgb8', 90, 200)]
    for frame in frames:
        wanted = bits(frame)
        sent = camera.put(frame)
        writer.write([sent.gpu], out.ctypes.data, STREAM)
        assert sent.data is frame.data
        assert sent.stamp_ns == frame.stamp_ns
        gpu.run(STREAM)
        np.testing.assert_array_equal(out[0], wanted)


def test_a_frame_is_read_although_the_camera_goes_on(gpu):
    camera = CameraUpload('base', mapped=False)
    kernel = queued(gpu)
    writer = ImageWriter(ImageSpec(1, 56, 56), kernel)
    outs = [np.zeros((1, 3, 56, 56), np.float32) for _ in range(12)]
    wanted = []
    for i, out in enumerate(outs):
        frame = raw_frame('rgb8', 48, 64, noise=True)
        frame.data[:] = np.roll(frame.data, i)
        wanted.append(bits(frame))
        writer.write([camera.put(frame).gpu], out.ctypes.data, STREAM)
    gpu.run(STREAM)
    for out, want in zip(outs, wanted, strict=True):
        np.testing.assert_array_equal(out[0], want)


def test_one_upload_a_frame_and_none_after(gpu):
    camera = CameraUpload('base', mapped=False)
    writer = ImageWriter(ImageSpec(1, 56, 56), queued(gpu))
    writer.prepare(48, 64)
    out = np.zeros((1, 3, 56, 56), np.float32)
    before = cuda.traffic.uploads, cuda.traffic.upload_bytes
    for _ in range(5):
        sent = camera.put(raw_frame('bgr8', 48, 64, pad=2))
        assert (sent.gpu.uploads, sent.gpu.upload_bytes) == (1, 47 * 194 + 192)
        writer.write([sent.gpu], out.ctypes.data, STREAM)
        gpu.run(STREAM)
    assert cuda.traffic.uploads - before[0] == 5
    assert cuda.traffic.upload_bytes - before[1] == 5 * (47 * 194 + 192)


def test_a_larger_picture_gets_more_memory_and_held_ones_keep_theirs(gpu):
    camera = CameraUpload('base', mapped=False)
    small = raw_frame('rgb8', 20, 30, noise=True)
    held = camera.put(small)
    camera.put(raw_frame('rgb8', 40, 60))
    allocated = gpu.allocations
    camera.put(raw_frame('rgb8', 10, 12))
    assert gpu.allocations == allocated
    out = np.zeros((1, 3, 56, 56), np.float32)
    writer = ImageWriter(ImageSpec(1, 56, 56), queued(gpu))
    writer.write([held.gpu], out.ctypes.data, STREAM)
    gpu.run(STREAM)
    np.testing.assert_array_equal(out[0], bits(small))


def test_a_reader_that_holds_every_frame(gpu):
    camera = CameraUpload('wrist', mapped=False)
    held = [camera.put(raw_frame('rgb8', 8, 8)) for _ in range(PLACES)]
    with pytest.raises(BadImage, match=r'camera wrist: 6 frames are on the GPU and all are held'):
        camera.put(raw_frame('rgb8', 8, 8))
    held.pop()
    camera.put(raw_frame('rgb8', 8, 8))


def changed(**fields):
    frame = raw_frame('rgb8', 4, 6)
    values = {name: getattr(frame, name) for name in CameraFrame.__slots__}
    return CameraFrame(**(values | fields))


@pytest.mark.parametrize(
    ('frame', 'error', 'message'),
    [
        (changed(encoding='32FC1'), UnknownEncoding, "'32FC1' is unknown; known: rgb8, bgr8"),
        (changed(step=17), BadImage, 'step 17 is shorter than a row of 6 rgb8 pixels .18.'),
        (changed(height=5), BadImage, 'data holds 72 bytes, 6 x 5 rgb8.*needs 90.*truncated'),
        (changed(width=0), BadImage, 'image is 0 x 4: the driver sent no pixels'),
        (changed(height=-1), BadImage, 'image is 6 x -1: the driver sent no pixels'),
        (changed(encoding='yuyv', width=5), BadImage, 'yuyv image of 5 x 4: must be even'),
        (changed(encoding='bayer_rggb8', height=3), BadImage, 'of 6 x 3: must be even'),
        (
            changed(encoding='jpeg', data=compressed('jpeg').data[:20]),
            BadImage,
            'jpeg image of 20 bytes does not decode',
        ),
    ],
)
def test_bad_frames_are_told_as_on_the_cpu(gpu, frame, error, message):
    for way in (CameraUpload('base', mapped=False).put, to_rgb):
        with pytest.raises(error, match=message):
            way(frame)
    assert 'upload' not in gpu.log
