"""Camera frames of every encoding, with inputs that can fail: ramps, noise, one bright corner."""

from types import SimpleNamespace

import numpy as np

from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.camera.encodings import ENCODINGS, raw_encoding
from vla_trt_ros.datatypes import NS, CameraFrame
from vla_trt_ros.gpu_frame import GpuFrame
from vla_trt_ros.preprocess.cuda.filters import resize_levels
from vla_trt_ros.preprocess.levels import level_words


def picture(height, width, channels, *, noise=False):
    """uint8 [height, width, channels]: each channel its own ramp, and one bright corner."""
    if noise:
        seed = height * width + channels
        return np.random.default_rng(seed).integers(
            0, 256, (height, width, channels), dtype=np.uint8
        )
    y, x, c = np.ogrid[:height, :width, :channels]
    image = ((3 + c) * x * 255 // (5 * width) + (7 - c) * y * 255 // (9 * height)) % 256
    image[: max(1, height // 8), -max(1, width // 8) :] = 255
    return image.astype(np.uint8)


def raw_frame(encoding, height, width, *, pad=0, offset=0, noise=False, stamp_ns=NS):
    """A frame with ``pad`` bytes behind every row but the last, ``offset`` bytes into memory."""
    channels = ENCODINGS[encoding].channels
    pixels = picture(height, width, channels, noise=noise).reshape(height, -1)
    rows = np.pad(pixels, ((0, 0), (0, pad)), constant_values=199).reshape(-1)
    memory = np.full(offset + rows.size, 77, np.uint8)
    memory[offset:] = rows
    data = memory[offset : offset + rows.size - pad]
    step = width * channels + pad
    return CameraFrame(stamp_ns, stamp_ns, 'camera', encoding, height, width, step, data)


def in_place(frame):
    """The GpuFrame of ``frame`` in host memory, where a kernel of the host reads it."""
    layout = raw_encoding(frame.encoding).layout
    lease = SimpleNamespace(
        wait=lambda stream: None, read=lambda stream: None, keeps_alive=frame.data
    )
    address = frame.data.ctypes.data
    return GpuFrame(address, frame.height, frame.width, frame.step, layout, lease, 1, 0)


def planes(rgb, dtype='float32'):
    """Words [3, H, W] of uint8 [H, W, 3]."""
    return level_words(dtype)[rgb].transpose(2, 0, 1)


def expected(frame, height, width, dtype='float32'):
    """Words [3, height, width] that the kernel makes of ``frame``, by NumPy and OpenCV."""
    return planes(resize_levels(to_rgb(frame), height, width), dtype)
