import json
import time
from pathlib import Path

import numpy as np
import pytest

from vla_trt_ros.perception.heads import MAX_CANDIDATES, decode, suppress
from vla_trt_ros.perception.spec import DetectorConfig

FINAL = DetectorConfig(320, ('cup', 'hand'), 'boxes')
DENSE = DetectorConfig(320, ('cup', 'hand'), 'dense')


def final(rows):
    return np.array(rows, np.float32).reshape(1, -1, 6)


def dense(columns):
    """Columns of centre x, centre y, width, height, score per label, among empty places."""
    output = np.zeros((1, 6, 2100), np.float32)
    output[0, :4] = 9.0
    for place, column in enumerate(columns):
        output[0, :, 7 * place] = column
    return output


def test_final_boxes_come_out_best_first():
    found = decode(
        final([[0, 1, 10, 11, 0.4, 1], [5, 5, 9, 9, 0.9, 0], [1, 1, 2, 2, 0.2, 0]]), FINAL, 0.25, 9
    )
    assert found.boxes.tolist() == [[5, 5, 9, 9], [0, 1, 10, 11]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.4])
    assert found.labels.tolist() == [0, 1]


def test_labels_that_do_not_exist_and_numbers_that_are_none_are_dropped():
    rows = [
        [0, 0, 9, 9, 0.9, 2],
        [0, 0, 9, 9, 0.9, -1],
        [0, 0, np.nan, 9, 0.9, 1],
        [0, 0, 9, 9, np.inf, 1],
        [0, 0, 9, 9, np.nan, 1],
        [0, 0, 9, 9, 0.5, 1],
    ]
    assert decode(final(rows), FINAL, 0.25, 9).scores.tolist() == [0.5]


def test_dense_boxes_have_corners_and_the_best_label():
    found = decode(dense([[50, 60, 20, 40, 0.3, 0.8]]), DENSE, 0.25, 9)
    assert found.boxes.tolist() == [[40, 40, 60, 80]]
    assert found.scores.tolist() == pytest.approx([0.8])
    assert found.labels.tolist() == [1]


def test_of_two_boxes_of_one_label_the_better_stays():
    one, other = [50, 60, 20, 40, 0, 0.7], [51, 60, 20, 40, 0, 0.8]
    found = decode(dense([one, other]), DENSE, 0.25, 9)
    assert found.scores.tolist() == pytest.approx([0.8])


def test_boxes_of_two_labels_do_not_touch_each_other():
    found = decode(dense([[50, 60, 20, 40, 0.7, 0], [51, 60, 20, 40, 0, 0.8]]), DENSE, 0.25, 9)
    assert found.labels.tolist() == [1, 0]


def test_a_box_that_only_a_dropped_one_overlaps_stays():
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    labels = np.zeros(3, np.int64)
    assert suppress(boxes, labels, 0.4, 9) == [0, 2]
    assert suppress(boxes, labels, 0.5, 9) == [0, 1, 2]


@pytest.mark.parametrize('config', [FINAL, DENSE], ids=['final', 'dense'])
def test_nothing_found(config):
    empty = final(np.zeros((300, 6))) if config is FINAL else dense([])
    found = decode(empty, config, 0.25, 9)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


@pytest.mark.alone
@pytest.mark.parametrize('config', [FINAL, DENSE], ids=['final', 'dense'])
def test_thousands_of_boxes_are_bounded(config):
    random = np.random.default_rng(0)
    if config is FINAL:
        output = random.random((1, 8400, 6), np.float32)
        output[..., :4] = np.sort(output[..., :4] * 300, axis=2)
    else:
        output = random.random((1, 6, 8400), np.float32)
        output[:, :4] = output[:, :4] * 90 + 100
    best = output[0, :, 4].max() if config is FINAL else output[0, 4:].max()
    begin = time.monotonic()
    found = decode(output, config, 0.01, 300)
    assert time.monotonic() - begin < 2.0
    assert 50 < len(found) <= 300
    assert found.scores[0] == best
    assert (np.diff(found.scores) <= 0).all()


def test_the_places_that_are_looked_at_are_the_best(monkeypatch):
    monkeypatch.setattr('vla_trt_ros.perception.heads.MAX_CANDIDATES', 2)
    columns = [[40 * i + 20, 20, 10, 10, 0, 0.3 + 0.1 * i] for i in range(5)]
    found = decode(dense(columns), DENSE, 0.25, 9)
    assert found.scores.tolist() == pytest.approx([0.7, 0.6])
    assert MAX_CANDIDATES == 3000


def test_recorded_outputs_give_what_ultralytics_made_of_them():
    """recorded/yolo.json: a crowded dense output and ultralytics 8.4.190's own boxes of it."""
    recorded = json.loads((Path(__file__).parent / 'recorded' / 'yolo.json').read_text())
    labels = tuple(f'c{i}' for i in range(recorded['labels']))
    config = DetectorConfig(320, labels, 'dense')
    output = np.array(recorded['output'], np.float32)[None]
    found = decode(output, config, recorded['score'], 300)
    theirs = np.array(recorded['boxes'], np.float32)
    assert len(found) == len(theirs) > 20
    assert found.boxes == pytest.approx(theirs[:, :4], abs=1e-3)
    assert found.scores == pytest.approx(theirs[:, 4], abs=1e-6)
    assert found.labels.tolist() == theirs[:, 5].astype(int).tolist()


@pytest.mark.parametrize('seed', range(4))
def test_it_is_ultralytics_own(seed):
    pytest.importorskip('ultralytics', reason="workshop only: pip install '.[detectors]'")
    import torch
    from ultralytics.utils.nms import non_max_suppression

    random = np.random.default_rng(seed)
    output = crowd(random, labels=5, places=2100)
    config = DetectorConfig(320, tuple('abcde'), 'dense')
    found = decode(output, config, 0.25, 300)
    theirs = non_max_suppression(torch.from_numpy(output), 0.25, 0.7)[0].numpy()
    assert len(found) == len(theirs) > 20
    assert found.boxes == pytest.approx(theirs[:, :4], abs=1e-3)
    assert found.labels.tolist() == theirs[:, 5].astype(int).tolist()


def crowd(random, labels, places):
    """A dense output of a few dozen objects, each seen by many places."""
    output = np.zeros((1, 4 + labels, places), np.float32)
    objects = random.uniform((20, 20, 10, 10), (300, 300, 120, 120), (40, 4))
    kinds = random.integers(0, labels, 40)
    rows = random.integers(0, 40, places)
    output[0, :4] = (objects[rows] * random.normal(1, 0.03, (places, 4))).T
    output[0, 4:] = random.uniform(0, 0.2, (labels, places))
    seen = random.random(places) < 0.4
    output[0, 4 + kinds[rows[seen]], np.flatnonzero(seen)] = random.uniform(0.2, 1, seen.sum())
    return output
