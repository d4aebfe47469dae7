"""The project's own detector: what comes out of the graph is what the numbers of its grid say."""

import numpy as np
import pytest

pytest.importorskip('torch', reason="workshop only: pip install '.[export]'")

import torch

from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.perception.accuracy import iou, mean_average_precision
from vla_trt_ros.export.perception.network import (
    BEST,
    STRIDE,
    CropClassifier,
    FinalBoxes,
    ObjectDetector,
    fold_norms,
)
from vla_trt_ros.perception.detections import Detections


class Written(torch.nn.Module):
    """In place of the detector: logits and edges as a test writes them."""

    def __init__(self, logits, edges):
        super().__init__()
        self.logits, self.edges = logits, edges

    def forward(self, images):
        return self.logits, self.edges


def written(labels=3, rows=6):
    return torch.full((1, labels, rows, rows), -9.0), torch.ones(1, 4, labels, rows, rows)


def test_a_peak_becomes_a_box_around_its_place():
    logits, edges = written()
    logits[0, 2, 4, 1] = 3.0
    edges[0, :, 2, 4, 1] = torch.tensor([5.0, 6.0, 7.0, 8.0])
    box = FinalBoxes(Written(logits, edges))(torch.zeros(1, 3, 48, 48))[0, 0]
    x, y = 1.5 * STRIDE, 4.5 * STRIDE
    expected = [x - 5, y - 6, x + 7, y + 8, 1 / (1 + np.exp(-3)), 2]
    assert box.tolist() == pytest.approx(expected, abs=1e-5)


def test_neighbours_of_a_peak_are_no_boxes_but_other_labels_are():
    logits, edges = written()
    logits[0, 0, 2, 2], logits[0, 0, 2, 3] = 3.0, 2.9
    logits[0, 1, 2, 3] = 1.0
    found = FinalBoxes(Written(logits, edges))(torch.zeros(1, 3, 48, 48))[0]
    sure = found[found[:, 4] > 0.5]
    assert sure[:, 5].tolist() == [0, 1]


@pytest.mark.parametrize('place', [(0, 0), (0, 39), (39, 0), (39, 39), (17, 23)])
def test_every_corner_of_a_large_grid(place):
    logits, edges = written(11, 40)
    logits[0, 10, place[0], place[1]] = 5.0
    box = FinalBoxes(Written(logits, edges))(torch.zeros(1, 3, 320, 320))[0, 0]
    assert (box[0].item() + 1) / STRIDE == place[1] + 0.5
    assert (box[1].item() + 1) / STRIDE == place[0] + 0.5
    assert box[5] == 10


def test_folding_the_norms_changes_nothing():
    torch.manual_seed(0)
    network = ObjectDetector(3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
    network.eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        after = fold_norms(network)(images)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    for ours, theirs in zip(before, after, strict=True):
        assert (ours - theirs).abs().max() < 1e-3 * ours.abs().max()


def test_the_graph_does_what_the_network_does(tmp_path):
    import onnx
    import onnxruntime as ort

    from vla_trt_ros.export.to_onnx import export_stage
    from vla_trt_ros.policies.pi05.spec import StageSpec

    torch.manual_seed(0)
    network = ObjectDetector(3)
    torch.nn.init.normal_(network.heat.weight, 0, 3)  # scores that differ
    final = FinalBoxes(fold_norms(network)).eval()
    spec = StageSpec(
        (TensorSpec('images', (1, 3, 128, 128), 'float32'),),
        (TensorSpec('boxes', (1, BEST, 6), 'float32'),),
    )
    onnx.save(export_stage(final, spec), tmp_path / 'd.onnx')
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        ours = final(images)[0].numpy()
    session = ort.InferenceSession(tmp_path / 'd.onnx', providers=['CPUExecutionProvider'])
    theirs = session.run(None, {'images': images.numpy()})[0][0]
    peaks = ours[:, 4] > 0  # the rest fills up to BEST
    assert peaks.sum() > 5
    for row in ours[peaks]:  # nearly equal scores may change places
        assert np.abs(theirs - row).max(axis=1).min() < 0.01


def test_sizes_fit_a_small_bundle():
    count = sum(p.numel() for p in ObjectDetector(11).parameters())
    assert count * 4 < 4.2e6
    assert sum(p.numel() for p in CropClassifier(2).parameters()) * 4 < 0.4e6


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def found(rows, scores, labels):
    return Detections(boxes(*rows), np.array(scores, np.float32), np.array(labels, np.int64))


ONE = (0, 0, 10, 10)
TWO = (20, 20, 40, 40)


def test_overlap_of_boxes():
    table = iou(boxes(ONE, (5, 0, 15, 10)), boxes(ONE, TWO))
    assert table == pytest.approx(np.array([[1, 0], [1 / 3, 0]]), abs=1e-6)


def test_everything_found_is_one():
    truth = [(boxes(ONE, TWO), np.array([0, 1]))]
    result = mean_average_precision([found([TWO, ONE], [0.9, 0.4], [1, 0])], truth, 'ab')
    assert result.mean == 1.0
    assert result.per_label == {'a': 1.0, 'b': 1.0}
    assert (result.pictures, result.objects) == (1, 2)


def test_a_second_box_of_an_object_is_a_mistake():
    truth = [(boxes(ONE), np.array([0])), (boxes(ONE), np.array([0]))]
    twice = found([ONE, (0, 0, 10, 9)], [0.9, 0.8], [0, 0])
    late = found([ONE], [0.5], [0])
    # Half of the objects at precision 1, the others at 2 of 3.
    result = mean_average_precision([twice, late], truth, 'a')
    assert result.mean == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_another_label_or_too_small_an_overlap_does_not_count():
    truth = [(boxes(ONE), np.array([0]))]
    assert mean_average_precision([found([ONE], [0.9], [1])], truth, 'ab').mean == 0.0
    half = found([(0, 0, 10, 4.9)], [0.9], [0])
    assert mean_average_precision([half], truth, 'ab').mean == 0.0
    assert mean_average_precision([half], truth, 'ab', overlap=0.4).mean == 1.0


def test_what_is_missed_costs_recall():
    truth = [(boxes(ONE, TWO), np.array([0, 0]))]
    result = mean_average_precision([found([ONE], [0.9], [0])], truth, 'a')
    assert result.mean == pytest.approx(51 / 101)


def test_nothing_to_find():
    with pytest.raises(ConfigError, match='no picture has an object'):
        mean_average_precision([Detections.none()], [(boxes(), np.array([], np.int64))], 'a')
