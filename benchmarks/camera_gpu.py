"""Camera message to network input on a GPU: the host's copy, the upload, the kernel.

python benchmarks/camera_gpu.py [--json FILE]: two cameras, each size and encoding below, median
and p99 of 200 after 20 for warm-up. The host's clock from the message's bytes to the ring (host
copy) and to the filled input (a synchronisation included); the kernel by CUDA events around a
graph of 20 of it, since Python queues it slower than it runs.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from vla_trt_ros.camera.encodings import raw_encoding
from vla_trt_ros.camera.upload import CameraUpload
from vla_trt_ros.datatypes import NS, CameraFrame
from vla_trt_ros.gpu import cuda
from vla_trt_ros.preprocess.cuda.images import ImageSpec, ImageWriter

CASES = (
    ('rgb8', 480, 640),
    ('rgb8', 720, 1280),
    ('rgb8', 1080, 1920),
    ('yuv422_yuy2', 480, 640),
    ('bayer_rggb8', 1080, 1920),
)
VIEWS, SIZE, DTYPE = 2, 224, 'bfloat16'
WARM_UP, COUNT, IN_GRAPH = 20, 200, 20


def frame(encoding: str, height: int, width: int) -> CameraFrame:
    """Noise in ``encoding``."""
    step = width * raw_encoding(encoding).bytes_per_pixel
    data = np.random.default_rng(0).integers(0, 256, step * height, dtype=np.uint8)
    return CameraFrame(NS, NS, 'camera', encoding, height, width, step, data)


def measure(encoding: str, height: int, width: int) -> dict[str, object]:
    """One record."""
    message = frame(encoding, height, width)
    cameras = [CameraUpload(str(i)) for i in range(VIEWS)]
    writer = ImageWriter(ImageSpec(VIEWS, SIZE, SIZE, DTYPE))
    writer.prepare(height, width)
    out, stream = cuda.DeviceBuffer(VIEWS * 3 * SIZE * SIZE * 2), cuda.Stream()
    host, whole = [], []
    before = cuda.traffic.uploads
    for _ in range(WARM_UP + COUNT):
        t0 = time.perf_counter()
        sent = [camera.put(message) for camera in cameras]
        t1 = time.perf_counter()
        writer.write([s.gpu for s in sent], out.address, stream.handle)
        stream.wait()
        t2 = time.perf_counter()
        host.append((t1 - t0) * 1e3)
        whole.append((t2 - t0) * 1e3)
    uploads = (cuda.traffic.uploads - before) / (WARM_UP + COUNT)
    return {
        'encoding': encoding,
        'height': height,
        'width': width,
        'views': VIEWS,
        'output': [SIZE, SIZE, DTYPE],
        'uploads': uploads,
        'upload_bytes': VIEWS * message.data.size,
        'host_copy_ms': quantiles(host),
        'message_to_input_ms': quantiles(whole),
        'kernel_us': quantiles(kernel_times(writer, sent, out.address, stream.handle)),
        'n': COUNT,
    }


def kernel_times(
    writer: ImageWriter, sent: list[CameraFrame], address: int, stream: int
) -> list[float]:
    """Microseconds of one launch for all views, for frames that are there."""
    # A capture may not wait for what happened outside it; the pixels have arrived.
    nothing = SimpleNamespace(wait=lambda stream: None, read=lambda stream: None)
    frames = [replace(s.gpu, lease=nothing) for s in sent if s.gpu is not None]
    with cuda.capturing(stream) as graphs:
        for _ in range(IN_GRAPH):
            writer.write(frames, address, stream)
    begin, end, times = cuda.Event(), cuda.Event(), []
    for _ in range(WARM_UP + COUNT):
        begin.record(stream)
        graphs[0].launch(stream)
        end.record(stream)
        times.append(end.since(begin) * 1e3 / IN_GRAPH)
    return times


def quantiles(values: list[float]) -> dict[str, float]:
    """Median and 99th percentile after warm-up."""
    counted = values[WARM_UP:]
    return {
        'p50': round(float(np.median(counted)), 4),
        'p99': round(float(np.quantile(counted, 0.99)), 4),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', type=Path)
    arguments = parser.parse_args()
    properties = cuda.check(cuda.runtime().cudaGetDeviceProperties(0), 'asking the GPU')
    device = properties.name.decode().rstrip('\0')
    records = [measure(*case) for case in CASES]
    print(f'{device}, {VIEWS} views to {SIZE} x {SIZE} {DTYPE}, n={COUNT} after {WARM_UP}')
    print('camera                     host copy ms   message to input ms   kernel us   uploads')
    for r in records:
        name = f'{r["encoding"]} {r["width"]}x{r["height"]}'
        print(
            f'{name:26} {r["host_copy_ms"]["p50"]:12.3f} {r["message_to_input_ms"]["p50"]:21.3f}'
            f' {r["kernel_us"]["p50"]:11.1f} {r["uploads"]:9.1f}'
        )
    if arguments.json:
        text = json.dumps({'device': device, 'records': records}, indent=2)
        arguments.json.write_text(text + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
