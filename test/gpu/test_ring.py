"""The ring on a GPU that runs all as late as it may: a forgotten wait is a wrong byte."""

import ctypes
import gc
import threading

import numpy as np
import pytest
from gpu_stand_in import LazyCuda

from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import cuda
from vla_trt_ros.gpu.ring import UploadRing

SIZE = 64
POLICY, DETECTOR = 7, 8  # streams of two readers


@pytest.fixture
def gpu(monkeypatch):
    made = LazyCuda()
    monkeypatch.setattr(cuda, 'runtime', lambda: made)
    return made


def frame(fill, size=SIZE):
    return np.full(size, fill, np.uint8)


def queue_read(gpu, lease, stream, seen, count=SIZE):
    """What a kernel does: wait, read, tell."""
    address = lease.address
    lease.wait(stream)
    gpu.put(stream, lambda: seen.append(set(ctypes.string_at(address, count))))
    lease.read(stream)


@pytest.mark.parametrize('mapped', [False, True])
def test_a_reader_sees_its_own_frame_whatever_came_after(gpu, mapped):
    ring, seen = UploadRing(SIZE, places=2, mapped=mapped), []
    for fill in range(9):
        data = frame(fill)
        lease = ring.put(data)
        data[:] = 200  # the message may go once put returns
        queue_read(gpu, lease, POLICY, seen)
        del lease  # the reader is queued, not done
    gpu.run(POLICY)
    assert seen == [{fill} for fill in range(9)]


@pytest.mark.parametrize('mapped', [False, True])
def test_two_readers_on_two_streams(gpu, mapped):
    ring, one, two = UploadRing(SIZE, places=2, mapped=mapped), [], []
    for fill in range(6):
        lease = ring.put(frame(fill))
        queue_read(gpu, lease, POLICY, one)
        queue_read(gpu, lease, DETECTOR, two)
        del lease
    gpu.run(DETECTOR)
    gpu.run(POLICY)
    assert one == two == [{fill} for fill in range(6)]


def test_a_held_frame_stays(gpu):
    ring, seen = UploadRing(SIZE, places=3, mapped=False), []
    kept = ring.put(frame(42))
    for fill in range(8):
        ring.put(frame(fill))
    queue_read(gpu, kept, POLICY, seen)
    gpu.run(POLICY)
    assert seen == [{42}]


def test_all_places_held(gpu):
    ring = UploadRing(SIZE, places=2, mapped=False)
    held = [ring.put(frame(1)), ring.put(frame(2))]
    assert ring.put(frame(3)) is None
    del held[0]
    gc.collect()
    assert ring.put(frame(3)) is not None


def test_one_copy_a_frame_and_its_bytes(gpu):
    ring = UploadRing(SIZE, mapped=False)
    before = cuda.traffic.uploads, cuda.traffic.upload_bytes
    for size in (64, 64, 40):
        lease = ring.put(frame(1, size))
        assert (lease.uploads, lease.upload_bytes) == (1, size)
    assert cuda.traffic.uploads - before[0] == 3
    assert cuda.traffic.upload_bytes - before[1] == 168
    assert gpu.log.count('upload') == 3


def test_shared_memory_needs_no_copy(monkeypatch):
    gpu = LazyCuda(integrated=True)
    monkeypatch.setattr(cuda, 'runtime', lambda: gpu)
    ring, seen = UploadRing(SIZE), []
    assert ring.mapped
    lease = ring.put(frame(5))
    assert (lease.uploads, lease.upload_bytes) == (0, 0)
    queue_read(gpu, lease, POLICY, seen)
    gpu.run(POLICY)
    assert seen == [{5}]
    assert 'upload' not in gpu.log


def test_addresses_are_few_and_nothing_is_allocated_once_it_runs(gpu):
    ring, seen, addresses = UploadRing(SIZE, places=3, mapped=False), [], set()
    for fill in range(20):
        if fill == 6:
            allocated = gpu.allocations
        lease = ring.put(frame(fill))
        addresses.add(lease.address)
        queue_read(gpu, lease, POLICY, seen)
        gpu.run(POLICY)
    assert len(addresses) == 3
    assert gpu.allocations == allocated


def test_a_place_is_not_lost_when_a_copy_fails(gpu, monkeypatch):
    ring = UploadRing(SIZE, places=1, mapped=False)
    monkeypatch.setattr(gpu, 'cudaMemcpyAsync', lambda *a: (999,))
    with pytest.raises(BackendError, match='copying to the GPU: CUDA says 999'):
        ring.put(frame(1))
    monkeypatch.undo()
    monkeypatch.setattr(cuda, 'runtime', lambda: gpu)
    assert ring.put(frame(2)) is not None


def test_a_full_gpu_is_told(gpu):
    gpu.fail = 'cudaMalloc'
    with pytest.raises(BackendError, match='allocating 64 bytes on the GPU.*The GPU is full'):
        UploadRing(SIZE, mapped=False)


def test_traffic_is_each_thread_s_own(gpu):
    ring, mine = UploadRing(SIZE, mapped=False), cuda.traffic.uploads
    counted = []

    def put():
        ring.put(frame(1))
        counted.append(cuda.traffic.uploads)

    thread = threading.Thread(target=put)
    thread.start()
    thread.join()
    assert counted == [1]
    assert cuda.traffic.uploads == mine


def test_a_graph_counts_its_copies_when_it_runs(monkeypatch):
    from gpu_stand_in import Cuda

    gpu = Cuda()
    monkeypatch.setattr(cuda, 'runtime', lambda: gpu)
    array, buffer = cuda.pinned((10,), np.float32), cuda.DeviceBuffer(40)
    before = cuda.traffic.uploads, cuda.traffic.upload_bytes
    with cuda.capturing(3) as graphs:
        cuda.upload(buffer.address, array, 3)
    assert (cuda.traffic.uploads, cuda.traffic.upload_bytes) == before
    for _ in range(2):
        graphs[0].launch(3)
    assert cuda.traffic.uploads == before[0] + 2
    assert cuda.traffic.upload_bytes == before[1] + 80
