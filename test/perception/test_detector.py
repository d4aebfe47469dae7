"""The detector around its engine; the engine is the test's own."""

import numpy as np
import perception_bundles as bundles
import pytest
from perception_bundles import CPU

from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BackendError, BadImage, BundleError, ConfigError
from vla_trt_ros.perception.detector import Detector, load_detector
from vla_trt_ros.perception.spec import DetectorConfig

CONFIG = DetectorConfig(320, ('cup', 'hand'), 'boxes')
BOXES = TensorSpec('boxes', (1, 4, 6), 'float32')


def scene(width=640, height=480):
    """Grey, with one white square from (160, 120) to (200, 180)."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[120:180, 160:200] = 255
    return image


def find_white(images):
    """The engine: a box around what is white, label 1, and three empty rows."""
    assert images.shape == (1, 3, 320, 320)
    assert 0 <= images.min() <= images.max() <= 1
    rows, columns = np.nonzero((images[0] > 0.99).all(axis=0))
    found = np.zeros((1, 4, 6), np.float32)
    if len(rows):
        found[0, 2] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, 0.75, 1
    return found


@pytest.fixture
def detector(tmp_path, monkeypatch):
    bundles.engines(monkeypatch, find_white)
    return Detector(bundles.write(tmp_path / 'white', CONFIG, BOXES), CPU)


def test_boxes_are_in_pixels_of_the_cameras_own_picture(detector):
    found = detector.detect(bundles.frame(scene()))
    assert found.boxes[0] == pytest.approx([160, 120, 200, 180], abs=2.1)
    assert found.labels.tolist() == [1]
    (one,) = found.each(detector.labels)
    assert (one.label, one.label_id, one.score) == ('hand', 1, 0.75)
    assert (one.x, one.y, one.width, one.height) == pytest.approx((180, 150, 40, 60), abs=2.1)


def test_encodings_are_decoded_on_the_way(detector):
    image = scene()
    image[120:180, 160:200] = (255, 255, 255)
    image[0:20, 0:40] = (255, 0, 255)  # white in no order of channels
    found = detector.detect(bundles.frame(np.ascontiguousarray(image[..., ::-1]), 'bgr8'))
    assert found.boxes[0] == pytest.approx([160, 120, 200, 180], abs=2.1)


def test_channels_reach_the_network_as_red_green_blue(tmp_path, monkeypatch):
    seen = []

    def remember(images):
        seen.append(images.copy())
        return np.zeros((1, 4, 6), np.float32)

    bundles.engines(monkeypatch, remember)
    detector = Detector(bundles.write(tmp_path / 'd', CONFIG, BOXES), CPU)
    image = np.zeros((320, 320, 3), np.uint8)
    image[:, :] = (255, 128, 0)
    detector.detect(bundles.frame(image))
    assert seen[0][0, :, 5, 5] == pytest.approx([1, 128 / 255, 0], abs=1e-6)


@pytest.mark.parametrize(('width', 'height'), [(24, 18), (8, 8), (1, 1)])
def test_a_picture_smaller_than_the_input(detector, width, height):
    image = np.full((height, width, 3), 255, np.uint8)
    found = detector.detect(bundles.frame(image))
    assert found.boxes[0] == pytest.approx([0, 0, width, height], abs=0.1)


def test_nothing_found(detector):
    assert len(detector.detect(bundles.frame(np.zeros((48, 64, 3), np.uint8)))) == 0


def test_a_truncated_picture_is_refused(detector):
    frame = bundles.frame(scene())
    with pytest.raises(BadImage, match='truncated'):
        detector.detect(type(frame)(5, 6, '', 'rgb8', 480, 640, 1920, frame.data[:1000]))


def test_a_results_arrays_outlive_the_next_picture(detector):
    first = detector.detect(bundles.frame(scene()))
    before = first.boxes.copy()
    detector.detect(bundles.frame(np.full((480, 640, 3), 255, np.uint8)))
    assert (first.boxes == before).all()


def test_threshold_and_count_can_be_chosen(tmp_path, monkeypatch):
    rows = np.zeros((1, 4, 6), np.float32)
    rows[0, :, 2:5] = [[9, 9, s] for s in (0.3, 0.5, 0.7, 0.9)]
    bundles.engines(monkeypatch, lambda images: rows)
    bundle = bundles.write(tmp_path / 'd', CONFIG, BOXES)
    frame = bundles.frame(scene())
    assert len(Detector(bundle, CPU).detect(frame)) == 4
    assert len(Detector(bundle, CPU, score_threshold=0.6).detect(frame)) == 2
    two = Detector(bundle, CPU, max_detections=2).detect(frame)
    assert two.scores.tolist() == pytest.approx([0.9, 0.7])
    with pytest.raises(ConfigError, match='score_threshold 1.5 is outside 0 to 1'):
        Detector(bundle, CPU, score_threshold=1.5)
    with pytest.raises(ConfigError, match='max_detections 0 must be 1 or more'):
        Detector(bundle, CPU, max_detections=0)


@pytest.mark.parametrize(
    ('config', 'shape', 'message'),
    [
        (CONFIG, (1, 84, 2100), r'output is \[1, 84, 2100\], head boxes means \[1, N, 6\]'),
        (
            DetectorConfig(320, ('cup', 'hand'), 'dense'),
            (1, 84, 2100),
            r'2 labels \(cup, hand\) mean \[1, 6, N\]; give the labels of this network',
        ),
    ],
)
def test_labels_that_do_not_match_the_output(tmp_path, config, shape, message):
    bundle = bundles.write(tmp_path / 'd', config, TensorSpec('output0', shape, 'float32'))
    with pytest.raises(BundleError, match=message):
        Detector(bundle, CPU)


@pytest.mark.parametrize(
    'images',
    [
        TensorSpec('images', (1, 3, 640, 640), 'float32'),
        TensorSpec('images', (1, 3, 320, 320), 'float16'),
        TensorSpec('images', (2, 3, 320, 320), 'float32'),
    ],
)
def test_wrong_input_size(tmp_path, images):
    bundle = bundles.write(tmp_path / 'd', CONFIG, BOXES, images)
    with pytest.raises(BundleError, match='image_size 320 means float32 .1, 3, 320, 320.'):
        Detector(bundle, CPU)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'labels': []}, 'labels is empty'),
        ({'labels': ['cup', 'cup']}, "label 'cup' is listed twice"),
        ({'labels': ['cup', '']}, 'or a label is'),
        ({'image_size': 0}, 'image_size 0 is outside 1 to 4096'),
        ({'head': 'masks'}, "'masks' is none of boxes, dense"),
        ({'iou_threshold': 1.5}, 'iou_threshold 1.5 is outside 0 to 1'),
        ({'max_detections': 0}, 'max_detections 0 must be 1 or more'),
        ({'lables': ['cup']}, "unknown key 'lables'; did you mean 'labels'"),
    ],
)
def test_a_wrong_config(tmp_path, change, message):
    import dataclasses

    bundle = bundles.write(tmp_path / 'd', CONFIG, BOXES)
    wrong = dataclasses.replace(bundle, config={**bundle.config, **change})
    with pytest.raises(BundleError, match=message):
        Detector(wrong, CPU)


def test_a_graph_that_is_none(tmp_path):
    bundle = bundles.write(tmp_path / 'd', CONFIG, BOXES)
    with pytest.raises(BackendError, match='detect of d: ONNX Runtime .* cannot load'):
        Detector(bundle, CPU)


def test_the_bundle_of_a_policy(tmp_path):
    with pytest.raises(BundleError, match="'nano' holds a pi05, not a detector"):
        load_detector('nano')


def test_a_platform_that_the_bundle_was_not_built_for(tmp_path):
    from vla_trt_ros.config import load_platform

    bundle = bundles.write(tmp_path / 'd', CONFIG, BOXES)
    with pytest.raises(BundleError, match='no detect engine for tensorrt fp16.*vla-trt build'):
        Detector(bundle, load_platform('rtx'))


def test_closing_frees_the_engine(tmp_path, monkeypatch):
    made = bundles.engines(monkeypatch, find_white)
    bundles.write(tmp_path / 'white', CONFIG, BOXES)
    detector = load_detector(str(tmp_path / 'white'))
    assert made[0].runs == 1  # warmed up
    detector.close()
    assert made[0].closed
