"""candidates.cu, compiled as C++, and its rows read: as `heads.dense_boxes` on the host.

The GPU runs the same source (test_perception_on_gpu.py).
"""

import numpy as np
import pytest
from gpu_stand_in import Cuda
from host_kernel import HostCandidates

from vla_trt_ros.gpu import cuda
from vla_trt_ros.perception.candidates import ROW, Candidates
from vla_trt_ros.perception.heads import MAX_CANDIDATES, dense_boxes
from vla_trt_ros.perception.spec import DetectorConfig

CONFIG = DetectorConfig(320, tuple('abcde'), 'dense', iou_threshold=0.6)


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    made = Cuda()
    monkeypatch.setattr(cuda, 'runtime', lambda: made)
    return made


def output(places, sure, seed=0):
    """[1, 9, places], of which about ``sure`` have a score above 0.5."""
    rng = np.random.default_rng(seed)
    found = rng.uniform(0, 0.4, (1, 9, places)).astype(np.float32)
    found[0, :2] = rng.uniform(0, 320, (2, places))
    found[0, 2:4] = rng.uniform(4, 60, (2, places))
    where = rng.permutation(places)[:sure]
    found[0, rng.integers(4, 9, sure), where] = rng.uniform(0.51, 1, sure)
    return found


def run(array, least=0.5, most=300):
    dense = cuda.pinned(array.shape, np.float32)
    dense[...] = array
    candidates = Candidates('test', dense, least, HostCandidates())
    stream = cuda.Stream().handle
    for _ in range(2):  # the count begins anew
        candidates.mirrors['dense'].upload(dense, stream)
        candidates.enqueue(stream=stream)
        candidates.mirrors['count'].download(candidates.outputs['count'], stream)
    return candidates.detections(CONFIG, most)


@pytest.mark.parametrize(
    ('places', 'sure'), [(2100, 40), (8400, 900), (8400, 5000), (130, 0), (1, 1), (4000, 4000)]
)
def test_as_on_the_host(places, sure):
    array = output(places, sure)
    found, wanted = run(array), dense_boxes(array, CONFIG, 0.5, 300)
    assert len(found) == len(wanted) >= min(sure, 1)
    for name in ('boxes', 'scores', 'labels'):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_equal_scores_stand_in_the_order_of_their_places():
    array = output(500, 0)
    array[0, 6] = 0.75
    assert len(run(array)) == len(dense_boxes(array, CONFIG, 0.5, 300))
    np.testing.assert_array_equal(run(array).boxes, dense_boxes(array, CONFIG, 0.5, 300).boxes)


def test_of_too_many_the_best_are_looked_at():
    array = output(8400, 8400, seed=3)
    assert (array[0, 4:].max(axis=0) > 0.5).sum() > MAX_CANDIDATES
    np.testing.assert_array_equal(run(array).scores, dense_boxes(array, CONFIG, 0.5, 300).scores)


def test_what_is_no_number_is_dropped():
    array = output(200, 150)
    array[0, 5, ::7] = np.nan
    array[0, 0, ::5] = np.inf
    found, wanted = run(array), dense_boxes(array, CONFIG, 0.5, 300)
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    assert np.isfinite(found.boxes).all()


def test_a_row_is_as_long_as_the_kernel_s():
    assert ROW.itemsize == 32  # candidates.cu asserts the same
