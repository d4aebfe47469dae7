"""The bundles that are shipped, on pictures of scenes that nobody trained on."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.config import find_file
from vla_trt_ros.perception.classifier import best_labels, load_classifier
from vla_trt_ros.perception.detector import load_detector

RECORDED = Path(__file__).parent / 'recorded'
TRUTH = json.loads((RECORDED / 'scenes.json').read_text())
BUNDLES = ('sim-objects', 'sim-gripper', 'sim-opening')
PLATFORMS = ('cpu', 'cpu-int8')


def picture(name):
    return cv2.imread(str(RECORDED / f'{name}.jpg'), cv2.IMREAD_COLOR_RGB)


def overlap(a, b):
    inner = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return inner / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inner)


@pytest.fixture(scope='module', params=PLATFORMS)
def detector(request):
    detector = load_detector('sim-objects', request.param)
    yield detector
    detector.close()


def test_what_is_in_the_pictures_is_found(detector):
    hits = misses = 0
    for name, objects in TRUTH.items():
        found = detector.detect_rgb(picture(name))
        best = {}
        for box, label in zip(found.boxes, found.labels, strict=True):
            best.setdefault(detector.labels[label], box)
        for label, box in objects.items():
            hit = label in best and overlap(best[label], np.array(box, np.float32)) >= 0.5
            hits, misses = hits + hit, misses + (not hit)
    assert hits + misses == 16
    assert misses <= 1


def test_what_is_not_in_a_picture_is_not_found(detector):
    for name, objects in TRUTH.items():
        found = detector.detect_rgb(picture(name))
        sure = {detector.labels[i] for i in found.labels[found.scores > 0.5]}
        assert sure <= set(objects), name


def test_a_larger_picture_of_the_same_shows_the_same(detector):
    image = picture('drawer-open-0-near')
    large = cv2.resize(image, (640, 640), interpolation=cv2.INTER_CUBIC)
    ours, theirs = (
        {detector.labels[i]: box for box, i in zip(f.boxes, f.labels, strict=True)}
        for f in (detector.detect_rgb(image), detector.detect_rgb(large))
    )
    assert overlap(ours['drawer'] * 640 / 224, theirs['drawer']) > 0.9


@pytest.mark.parametrize('platform', PLATFORMS)
@pytest.mark.parametrize(
    ('bundle', 'label', 'states'),
    [
        ('sim-opening', 'drawer', {'drawer-open-0-near': 'closed', 'drawer-open-95-near': 'open'}),
        ('sim-gripper', 'gripper', {'push-0-near': 'open', 'window-open-20-near': 'closed'}),
    ],
)
def test_what_is_open_and_what_is_closed(bundle, label, states, platform):
    classifier = load_classifier(bundle, platform)
    for name, state in states.items():
        box = np.array([TRUTH[name][label]], np.float32)
        ids, scores = best_labels(classifier.classify_rgb(picture(name), box))
        assert classifier.labels[ids[0]] == state, (name, scores)
    classifier.close()


@pytest.mark.parametrize('name', BUNDLES)
def test_they_are_small_ours_and_fit_each_other(name):
    bundle = open_bundle(find_file('bundles', name, ''))
    total = sum(p.stat().st_size for p in bundle.path.iterdir())
    assert total < 7e6
    assert bundle.manifest.notes['licence'] == 'Apache-2.0'
    for precision in ('fp32', 'fp16', 'int8'):
        assert bundle.sources(bundle.stages[0], precision)
    if name != 'sim-objects':
        classifier, detector = load_classifier(name), load_detector('sim-objects')
        assert classifier.class_ids(detector.labels)
