"""One frame through detectors and classifiers: boxes in its own pixels, labels as words."""

from types import SimpleNamespace

import numpy as np
import pytest
from fakes import rgb_frame

pytest.importorskip('onnx', reason='makes its networks with it')

from bright_bundles import bright_classifier, bright_detector

from vla_trt_ros.errors import BadImage, BundleError, ConfigError
from vla_trt_ros.perception.choice import bundles_of, load_detector_file, load_perception
from vla_trt_ros.perception.detections import Detections
from vla_trt_ros.perception.scene import Perception

T0 = 10**12


def grey(level: int, height: int = 48, width: int = 64):
    return rgb_frame(T0, np.full((height, width, 3), level, np.uint8))


@pytest.fixture(scope='module')
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bundles')
    return SimpleNamespace(
        detector=str(bright_detector(folder / 'bright')),
        classifier=str(bright_classifier(folder / 'light-or-dark')),
        other=str(bright_classifier(folder / 'of-dogs', of_class=('dog',))),
    )


@pytest.fixture
def seen(bundles):
    perception = load_perception(bundles.detector, bundles.classifier, score_threshold=0.3)
    yield perception
    perception.close()


def test_boxes_are_in_pixels_of_the_picture_and_classified(seen):
    scene = seen.look('base', grey(230))
    assert (scene.view, scene.stamp_ns, scene.frame_id) == ('base', T0, 'camera')
    assert (scene.width, scene.height) == (64, 48)
    person, cup = scene.findings
    assert (person.box.label, cup.box.label) == ('person', 'cup')
    # The picture is twice the network's square in width; 4 grey rows stand above it there.
    assert person.box.x == pytest.approx(32)
    assert person.box.width == pytest.approx(32)
    assert person.box.y == pytest.approx((0 + (20 - 4) * 2) / 2)
    (guess,) = person.guesses
    assert (guess.classifier, guess.label) == ('light-or-dark', 'light')
    assert guess.score > 0.9
    assert cup.guesses == ()
    assert [label for label, _ in scene.classes['light-or-dark']] == ['light', 'dark']
    assert scene.crops == 1


def test_nothing_found_is_an_empty_scene(seen):
    scene = seen.look('base', grey(0))
    assert scene.findings == ()
    assert scene.classes == {}
    assert scene.crops == 0


@pytest.mark.parametrize('size', [(1, 1), (3, 5), (480, 2)])
def test_picture_smaller_than_the_network_is_looked_at(seen, size):
    height, width = size
    scene = seen.look('base', grey(255, height, width))
    for finding in scene.findings:
        box = finding.box
        assert 0 <= box.x - box.width / 2 <= box.x + box.width / 2 <= width
        assert 0 <= box.y - box.height / 2 <= box.y + box.height / 2 <= height
    # Of fewer than 4 x 4 pixels no classifier says anything.
    assert all(not f.guesses for f in scene.findings)


def test_thousands_of_boxes_are_bounded_and_the_best_stay(tmp_path):
    path = str(bright_detector(tmp_path / 'crowd', boxes=5000, max_detections=5000))
    perception = load_perception(path, max_detections=20)
    scene = perception.look('base', grey(255))
    perception.close()
    assert len(scene.findings) == 20
    assert scene.findings[0].box.label == 'person'


def test_broken_picture_is_refused_by_name(seen):
    frame = rgb_frame(T0, np.full((4, 4, 3), 9, np.uint8))
    broken = type(frame)(**{**_fields(frame), 'data': frame.data[:7]})
    with pytest.raises(BadImage, match='truncated'):
        seen.look('base', broken)


def _fields(frame):
    return {name: getattr(frame, name) for name in frame.__slots__}


def test_classifier_of_an_unknown_class_is_refused_by_name(bundles):
    with pytest.raises(
        ConfigError, match="'of-dogs' is for 'dog', the detector knows only person"
    ):
        load_perception(bundles.detector, bundles.other)


def test_labels_that_do_not_match_the_network_are_refused(tmp_path):
    path = bright_classifier(tmp_path / 'three', labels=('a', 'b', 'c'))
    detector = str(bright_detector(tmp_path / 'bright'))
    with pytest.raises(BundleError, match=r'3 labels \(a, b, c\) mean \[1, 3\]'):
        load_perception(detector, str(path))


def test_wrong_input_size_is_refused(tmp_path):
    path = bright_detector(tmp_path / 'large', image_size=64)
    with pytest.raises(BundleError, match='image_size 64 means'):
        load_perception(str(path))


def test_two_detectors_share_one_list_best_first(bundles, tmp_path):
    other = bright_detector(tmp_path / 'dogs', labels=('dog', 'cup'))
    perception = load_perception(f'{bundles.detector},{other}', score_threshold=0.4)
    scene = perception.look('base', grey(255))
    assert perception.labels == ('person', 'cup', 'dog')
    assert [f.box.label for f in scene.findings] == ['person', 'dog', 'cup', 'cup']
    perception.close()


def test_no_detector_and_doubled_classifier_are_refused(bundles):
    with pytest.raises(ConfigError, match='without a detector'):
        Perception([])
    with pytest.raises(ConfigError, match='max_detections 0 must be 1 or more'):
        load_perception(bundles.detector, max_detections=0)


def test_detector_that_finds_nothing_needs_no_classifier():
    """A classifier is not asked about an empty picture."""

    class Blind:
        labels = ('person',)

        def detect_rgb(self, image):
            return Detections.none()

    class Refuses:
        name, labels, of_class = 'x', ('a',), ('person',)

        def class_ids(self, known):
            return (0,)

        def classify_rgb(self, image, boxes):
            assert not len(boxes), 'asked'
            return np.empty((0, 1), np.float32)

    assert Perception([Blind()], [Refuses()]).look('base', grey(200)).findings == ()


def test_words_name_files_or_bundles():
    assert bundles_of('a, b ,a', 'c') == (('a', 'b'), ('c',))
    assert bundles_of('', '') == ((), ())
    assert bundles_of('sim', 'mine') == (('sim-objects',), ('sim-gripper', 'sim-opening', 'mine'))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('name: other\ndescription: x\ndetectors: [a]', "name is 'other'; a file and its name"),
        ('name: mine\ndescription: x\ndetectors: []', 'detectors is empty; name a bundle'),
        ('name: mine\ndescription: x\ndetector: [a]', "unknown key 'detector'"),
    ],
)
def test_detector_file_that_is_wrong_is_refused(tmp_path, text, message):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_detector_file(path)
