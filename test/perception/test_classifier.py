"""The classifier around its engine; the engine is the test's own."""

import numpy as np
import perception_bundles as bundles
import pytest
from perception_bundles import CPU

from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BadImage, BundleError, ConfigError
from vla_trt_ros.perception.classifier import NONE, Classifier, best_labels, load_classifier
from vla_trt_ros.perception.spec import ClassifierConfig

CONFIG = ClassifierConfig(16, ('dark', 'light'), of_class=('cup',))
LOGITS = TensorSpec('logits', (1, 2), 'float32')


def brightness(images):
    """The engine: light where the mean is above one half."""
    return np.array([[0.0, 8 * (images.mean() - 0.5)]], np.float32)


@pytest.fixture
def classifier(tmp_path, monkeypatch):
    made = bundles.engines(monkeypatch, brightness)
    classifier = Classifier(bundles.write(tmp_path / 'light', CONFIG, LOGITS), CPU)
    classifier.made = made
    return classifier


def two_halves():
    """Left black, right white."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 255
    return bundles.frame(image)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_each_box_is_judged_on_its_own_pixels(classifier):
    found = classifier.classify(two_halves(), boxes((2, 2, 28, 38), (32, 2, 58, 38)))
    assert found.sum(axis=1) == pytest.approx([1, 1])
    labels, scores = best_labels(found)
    assert [classifier.labels[i] for i in labels] == ['dark', 'light']
    assert scores == pytest.approx([1 / (1 + np.exp(-4))] * 2, abs=1e-5)


def test_a_box_without_pixels_has_no_label(classifier):
    found = classifier.classify(
        two_halves(), boxes((5, 5, 5, 5), (100, 0, 120, 40), (32, 2, 58, 38), (0, 0, 2, 40))
    )
    assert found[[0, 1, 3]].tolist() == [[0, 0]] * 3
    labels, scores = best_labels(found)
    assert labels.tolist() == [NONE, NONE, 1, NONE]
    assert scores[0] == 0
    assert classifier.made[0].runs == 1


def test_no_boxes(classifier):
    found = classifier.classify(two_halves(), boxes())
    assert found.shape == (0, 2)
    assert len(best_labels(found)[0]) == 0


def test_a_box_over_the_edge_is_cut_off(classifier):
    found = classifier.classify(two_halves(), boxes((32, -50, 400, 400)))
    assert best_labels(found)[0].tolist() == [1]


def test_mean_and_std_are_those_of_the_manifest(tmp_path, monkeypatch):
    seen = []

    def remember(images):
        seen.append(images.copy())
        return np.array([[0.25, 0.75]], np.float32)

    bundles.engines(monkeypatch, remember)
    config = ClassifierConfig(
        16, ('a', 'b'), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0), output='probabilities'
    )
    classifier = Classifier(bundles.write(tmp_path / 'c', config, LOGITS), CPU)
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, :] = (255, 0, 51)
    found = classifier.classify(bundles.frame(image), boxes((0, 0, 20, 20)))
    assert seen[0][0, :, 3, 3] == pytest.approx([1.0, -1.0, 0.1], abs=1e-6)
    assert found.tolist() == [[0.25, 0.75]]  # probabilities already


def test_the_margin_shows_what_is_around_a_box(tmp_path, monkeypatch):
    bundles.engines(monkeypatch, brightness)
    for margin, label in ((0.0, 0), (1.0, 1)):
        config = ClassifierConfig(16, ('dark', 'light'), margin=margin)
        classifier = Classifier(bundles.write(tmp_path / f'c{margin}', config, LOGITS), CPU)
        image = np.full((60, 60, 3), 255, np.uint8)
        image[20:40, 20:40] = 0
        found = classifier.classify(bundles.frame(image), boxes((20, 20, 40, 40)))
        assert best_labels(found)[0].tolist() == [label]


def test_large_logits_do_not_overflow(tmp_path, monkeypatch):
    bundles.engines(monkeypatch, lambda images: np.array([[1e4, 0.0]], np.float32))
    classifier = Classifier(bundles.write(tmp_path / 'c', CONFIG, LOGITS), CPU)
    assert classifier.classify(two_halves(), boxes((0, 0, 9, 9))).tolist() == [[1.0, 0.0]]


def test_it_looks_at_the_classes_that_it_is_for(classifier):
    assert classifier.class_ids(('hand', 'cup')) == (1,)
    with pytest.raises(ConfigError, match="'light' is for 'cup', the detector knows only hand"):
        classifier.class_ids(('hand', 'drawer'))


def test_without_a_class_it_looks_at_all(tmp_path, monkeypatch):
    bundles.engines(monkeypatch, brightness)
    config = ClassifierConfig(16, ('dark', 'light'))
    classifier = Classifier(bundles.write(tmp_path / 'c', config, LOGITS), CPU)
    assert classifier.class_ids(('hand', 'cup')) == (0, 1)


def test_a_frame_that_does_not_decode(classifier):
    frame = bundles.frame(np.zeros((4, 4, 3), np.uint8), 'jpeg')
    with pytest.raises(BadImage, match='does not decode'):
        classifier.classify(frame, boxes((0, 0, 4, 4)))


def test_labels_that_do_not_match_the_output(tmp_path):
    output = TensorSpec('logits', (1, 1000), 'float32')
    bundle = bundles.write(tmp_path / 'c', CONFIG, output)
    with pytest.raises(BundleError, match=r'output is \[1, 1000\], 2 labels \(dark, light\)'):
        Classifier(bundle, CPU)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ({'mean': (0.5,)}, 'mean has 1 numbers'),
        ({'std': (0.5, 0.0, 0.5)}, 'std .* must be above 0'),
        ({'margin': -0.1}, 'margin -0.1 is outside 0 to 4'),
        ({'labels': ()}, 'labels is empty'),
    ],
)
def test_a_wrong_config(words, message):
    with pytest.raises(ConfigError, match=message):
        ClassifierConfig(**{'image_size': 16, 'labels': ('a', 'b'), **words})


def test_a_detector_is_no_classifier(tmp_path, monkeypatch):
    from vla_trt_ros.perception.spec import DetectorConfig

    boxes6 = TensorSpec('boxes', (1, 4, 6), 'float32')
    bundles.write(tmp_path / 'd', DetectorConfig(32, ('a',), 'boxes'), boxes6)
    with pytest.raises(BundleError, match="'d' holds a detector, not a classifier"):
        load_classifier(str(tmp_path / 'd'))
