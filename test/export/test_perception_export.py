"""Detectors and classifiers from an ONNX file to a bundle, on networks of a few kilobytes."""

import json

import numpy as np
import pytest

pytest.importorskip('onnx', reason="workshop only: pip install '.[export]'")

import onnx
from onnx import TensorProto, helper, numpy_helper

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.cli.main import main
from vla_trt_ros.errors import BundleError, ConfigError
from vla_trt_ros.export.perception.graph import head_of, read_network, with_labels
from vla_trt_ros.export.perception.half import ends, rounded, stored_in_half, to_half
from vla_trt_ros.export.perception.parity import compare, runner
from vla_trt_ros.export.perception.pictures import network_input, random_pictures, read_folder
from vla_trt_ros.export.perception.quantise import (
    collect_ranges,
    quantise,
    quantise_for_cpu,
    quantised_convs,
)
from vla_trt_ros.perception.classifier import best_labels, load_classifier
from vla_trt_ros.perception.detector import load_detector
from vla_trt_ros.perception.spec import ClassifierConfig, DetectorConfig

LABELS = ('red', 'green', 'blue')
SIDE, GRID = 64, 8


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def colour_detector(scale=1.0):
    """A dense detector: a place of the grid scores what its colour is, its box is 16 x 16."""
    random = np.random.default_rng(0)
    mean = np.zeros((3, 3, 8, 8), np.float32)
    for colour in range(3):
        mean[colour, colour] = 1 / 64
    # A detour over many channels and back, so that there is a convolution between two others.
    spread = random.normal(0, 1, (16, 3)).astype(np.float32)
    wide = np.maximum(spread @ np.eye(3, dtype=np.float32), 0)
    back = np.linalg.pinv(wide).astype(np.float32) * scale
    # Pure colours score 1, grey ones about a third.
    sharpen = (2 * np.eye(3) - 0.5 * np.ones((3, 3)) + 0.0).astype(np.float32)
    centre = (np.arange(GRID) + 0.5) * 8
    x, y = np.meshgrid(centre, centre)
    boxes = np.stack((x, y, np.full_like(x, 16), np.full_like(x, 16))).reshape(1, 4, -1)
    weights = [
        tensor('w0', mean),
        tensor('w1', np.maximum(spread, 0)[:, :, None, None]),
        tensor('w2', back[:, :, None, None]),
        tensor('w3', sharpen[:, :, None, None]),
        tensor('b3', np.zeros(3, np.float32)),
        tensor('boxes', boxes.astype(np.float32)),
        tensor('shape', np.array([1, 3, GRID * GRID], np.int64)),
    ]
    nodes = [
        helper.make_node('Conv', ['images', 'w0'], ['c0'], strides=[8, 8]),
        helper.make_node('Relu', ['c0'], ['r0']),
        helper.make_node('Conv', ['r0', 'w1'], ['c1']),
        helper.make_node('Relu', ['c1'], ['r1']),
        helper.make_node('Conv', ['r1', 'w2'], ['c2']),
        helper.make_node('Relu', ['c2'], ['r2']),
        helper.make_node('Conv', ['r2', 'w3', 'b3'], ['c3']),
        helper.make_node('Reshape', ['c3', 'shape'], ['scores']),
        helper.make_node('Concat', ['boxes', 'scores'], ['output'], axis=1),
    ]
    return graph(nodes, weights, [1, 7, GRID * GRID])


def graph(nodes, weights, output, opset=20, images=(1, 3, SIDE, SIDE)):
    built = helper.make_graph(
        nodes,
        'net',
        [helper.make_tensor_value_info('images', TensorProto.FLOAT, images)],
        [helper.make_tensor_value_info('output', TensorProto.FLOAT, output)],
        weights,
    )
    return helper.make_model(built, opset_imports=[helper.make_opsetid('', opset)], ir_version=9)


def colour_classifier():
    """Logits: ten times the mean colour."""
    nodes = [
        helper.make_node('Conv', ['images', 'w0'], ['c0'], strides=[8, 8]),
        helper.make_node('Relu', ['c0'], ['r0']),
        helper.make_node('GlobalAveragePool', ['r0'], ['pooled']),
        helper.make_node('Flatten', ['pooled'], ['flat']),
        helper.make_node('Gemm', ['flat', 'w1', 'b1'], ['output']),
    ]
    mean = np.zeros((3, 3, 8, 8), np.float32)
    for colour in range(3):
        mean[colour, colour] = 1 / 64
    weights = [
        tensor('w0', mean),
        tensor('w1', 10 * np.eye(3, dtype=np.float32)),
        tensor('b1', np.zeros(3, np.float32)),
    ]
    return graph(nodes, weights, [1, 3])


def coloured(colour, at=None):
    """A grey picture, or a dark one with a coloured square at place ``at`` of the grid."""
    image = np.full((SIDE, SIDE, 3), 10, np.uint8)
    row, column = at
    image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8, colour] = 250
    return image


@pytest.fixture
def detector_file(tmp_path):
    onnx.save(with_labels(colour_detector(), LABELS), tmp_path / 'colours.onnx')
    return tmp_path / 'colours.onnx'


@pytest.fixture
def pictures(tmp_path):
    import cv2

    folder = tmp_path / 'pictures' / 'deep'
    folder.mkdir(parents=True)
    for i in range(10):
        image = coloured(i % 3, (i % 8, (3 * i) % 8))
        cv2.imwrite(str(folder / f'{i}.png'), image[..., ::-1])
    return tmp_path / 'pictures'


def export(*words):
    return main(['export', *map(str, words)])


def test_a_detector_from_onnx_to_boxes(detector_file, pictures, tmp_path, capsys):
    out = tmp_path / 'b' / 'colours'
    words = ('--precision', 'fp16,int8,fp8', '--calibrate', pictures, '--score', '0.5')
    words += ('--store', 'fp16')
    assert export('--detector', detector_file, *words, '--out', out, '--licence', 'MIT') == 0
    said = capsys.readouterr().out
    assert 'detect.int8-cpu.onnx: 100.0 % of' in said
    assert 'detector of 3 labels' in said
    bundle = open_bundle(out)
    assert bundle.manifest.notes['licence'] == 'MIT'
    assert {s.precision for s in bundle.manifest.sources} == {'fp32', 'fp16', 'int8', 'fp8'}
    assert {e.precision for e in bundle.manifest.engines} == {'fp32', 'int8'}
    for platform in ('cpu', 'cpu-int8'):
        detector = load_detector(str(out), platform)
        assert detector.labels == LABELS
        found = detector.detect_rgb(coloured(2, (5, 1)))
        assert found.labels.tolist() == [2]
        assert found.boxes[0] == pytest.approx([4, 36, 20, 52], abs=0.01)
        detector.close()
    assert main(['show', str(out)]) == 0
    assert 'labels: red, green, blue' in capsys.readouterr().out


def test_a_classifier_from_onnx_to_labels(pictures, tmp_path, capsys):
    onnx.save(colour_classifier(), tmp_path / 'c.onnx')
    out = tmp_path / 'main-colour'
    words = ('--labels', 'red,green,blue', '--of', 'cup', '--precision', 'int8')
    words += ('--calibrate', pictures, '--margin', '0.5')
    assert export('--classifier', tmp_path / 'c.onnx', *words, '--out', out) == 0
    assert 'classify.int8-cpu.onnx: 100.0 % of 10' in capsys.readouterr().out
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['config']['output'] == 'logits'
    assert manifest['config']['of_class'] == ['cup']
    assert 'layout' not in manifest
    classifier = load_classifier(str(out), 'cpu-int8')
    image = np.zeros((40, 40, 3), np.uint8)
    image[:20, :, 1] = image[20:, :, 0] = 255
    found = classifier.classify_rgb(image, np.array([[0, 0, 40, 12], [0, 28, 40, 40]], np.float32))
    assert [LABELS[i] for i in best_labels(found)[0]] == ['green', 'red']


def test_the_end_stays_in_float32():
    model = colour_detector()
    assert ends(model) == {'scores', 'output'}
    half = to_half(model)
    onnx.checker.check_model(half, full_check=True)
    types = {t.name: t.data_type for t in half.graph.initializer}
    assert types['w1_half'] == TensorProto.FLOAT16
    assert types['boxes'] == TensorProto.FLOAT
    assert 'w1' not in types
    image = network_input(coloured(0, (2, 6)), DetectorConfig(SIDE, LABELS, 'dense'))
    ours, theirs = runner(model)(image), runner(half)(image)
    assert (theirs[0, :4] == ours[0, :4]).all()
    assert 0 < np.abs(theirs - ours).max() < 2e-3


def test_weights_stored_in_half_the_bytes_compute_the_same():
    model = rounded(colour_detector())
    stored = stored_in_half(model)
    onnx.checker.check_model(stored, full_check=True)
    assert stored.ByteSize() < 0.75 * model.ByteSize()
    image = network_input(coloured(0, (2, 6)), DetectorConfig(SIDE, LABELS, 'dense'))
    assert runner(stored)(image) == pytest.approx(runner(model)(image), abs=1e-6)
    assert (runner(model)(image) != runner(colour_detector())(image)).any()


def test_numbers_that_float16_does_not_hold_are_refused():
    with pytest.raises(BundleError, match="weight 'w2' reaches .*e.*, float16 ends at 65504"):
        to_half(colour_detector(scale=1e6))


def test_the_last_convolution_is_not_quantised():
    assert [node.output[0] for node in quantised_convs(colour_detector())] == ['c0', 'c1', 'c2']


@pytest.mark.parametrize('precision', ['int8', 'fp8'])
def test_a_scale_for_each_channel_and_one_for_each_tensor(precision):
    config = DetectorConfig(SIDE, LABELS, 'dense', score_threshold=0.5)
    images = [network_input(coloured(i % 3, (i % 8, 2)), config) for i in range(8)]
    model = colour_detector()
    ranges = collect_ranges(model, images)
    assert set(ranges) == {'images', 'r0', 'r1'}
    assert ranges['images'] == pytest.approx(250 / 255)
    made = quantise(model, precision, ranges)
    onnx.checker.check_model(made, full_check=True)
    arrays = {t.name: t for t in made.graph.initializer}
    assert list(arrays['w1_half_scales'].dims) == [16]
    largest = 127 if precision == 'int8' else 448
    scale = numpy_helper.to_array(arrays['r1_scale'])
    assert scale.dtype == np.float16
    assert float(scale) == pytest.approx(ranges['r1'] / largest, rel=1e-3)
    parity = compare(precision, model, made, config, images)
    assert parity.compared == 8
    assert parity.same == 1.0
    assert 0 < parity.score < 0.1


def test_a_network_that_was_quantised_with_wrong_ranges_is_told():
    config = DetectorConfig(SIDE, LABELS, 'dense', score_threshold=0.5)
    images = [network_input(coloured(i % 3, (i % 8, 2)), config) for i in range(8)]
    model = colour_detector()
    ranges = {name: value / 20 for name, value in collect_ranges(model, images).items()}
    parity = compare('int8', model, quantise(model, 'int8', ranges), config, images)
    assert parity.same < 0.5
    assert 'of 8 as in fp32' in parity.line()


def test_the_form_for_a_cpu_multiplies_in_8_bits():
    config = DetectorConfig(SIDE, LABELS, 'dense', score_threshold=0.5)
    images = [network_input(coloured(i % 3, (i % 8, 2)), config) for i in range(8)]
    made = quantise_for_cpu(colour_detector(), images)
    types = [t.data_type for t in made.graph.initializer]
    assert TensorProto.INT8 in types
    assert compare('int8', colour_detector(), made, config, images).same == 1.0


def test_too_few_pictures_and_black_ones():
    config = DetectorConfig(SIDE, LABELS, 'dense')
    black = network_input(np.zeros((SIDE, SIDE, 3), np.uint8), config)
    with pytest.raises(ConfigError, match='7 pictures are too few to calibrate on; give 8'):
        collect_ranges(colour_detector(), [black] * 7)
    with pytest.raises(ConfigError, match="'images', which a convolution reads, was 0 at most"):
        collect_ranges(colour_detector(), [black] * 8)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--detector', 'no.onnx'), 'no.onnx cannot be read as ONNX'),
        (('--detector', 'net.engine'), 'net.engine is none of .pt, .yaml, .onnx'),
        (('--detector', 'FILE', '--labels', 'a,b'), r'output \[1, 7, 64\] is neither .* 2 labels'),
        (('--detector', 'FILE', '--labels', 'a,b,b'), "label 'b' is listed twice"),
        (('--detector', 'FILE', '--image-size', '320'), '--image-size 320: .* reads 64'),
        (('--detector', 'FILE', '--precision', 'int8'), 'give --calibrate FOLDER'),
        (('--detector', 'FILE', '--precision', 'bf16'), "'bf16' is none of fp32, fp16, int8, fp8"),
        (('--detector', 'FILE', '--score', '7'), 'score_threshold 7.0 is outside 0 to 1'),
        (('--classifier', 'FILE'), r'output is \[1, 7, 64\], 3 labels'),
        (('--classifier', 'FILE', '--mean', 'grey'), "--mean 'grey': write numbers"),
        (('--detector', 'FILE', '--precision', 'int8', '--calibrate', 'FILE'), 'is no folder'),
    ],
)
def test_bad_words_write_nothing(detector_file, tmp_path, capsys, words, message):
    words = [str(detector_file) if word == 'FILE' else word for word in words]
    out = tmp_path / 'made'
    assert export(*words, '--out', out) != 0
    import re

    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


def test_labels_that_nobody_told(tmp_path, capsys):
    onnx.save(colour_detector(), tmp_path / 'c.onnx')
    assert export('--detector', tmp_path / 'c.onnx', '--out', tmp_path / 'b') != 0
    assert 'does not say its labels; give --labels' in capsys.readouterr().err


def test_shapes_that_a_detector_has_not(tmp_path):
    free = graph(
        [helper.make_node('Relu', ['images'], ['output'])],
        [],
        ['n', 3, SIDE, SIDE],
        images=('n', 3, SIDE, SIDE),
    )
    onnx.save(free, tmp_path / 'free.onnx')
    with pytest.raises(BundleError, match='images has a dynamic shape'):
        read_network(tmp_path / 'free.onnx')
    wide = graph(
        [helper.make_node('Relu', ['images'], ['output'])],
        [],
        [1, 3, 32, 64],
        images=(1, 3, 32, 64),
    )
    onnx.save(wide, tmp_path / 'wide.onnx')
    with pytest.raises(BundleError, match='for one square picture'):
        read_network(tmp_path / 'wide.onnx')


def test_heads_by_their_shape():
    from vla_trt_ros.datatypes import TensorSpec

    def head(*shape):
        return head_of(TensorSpec('o', shape, 'float32'), 80)

    assert head(1, 300, 6) == 'boxes'
    assert head(1, 84, 8400) == 'dense'
    with pytest.raises(ConfigError, match='export a detector alone'):
        head(1, 116, 8400)  # with masks


def test_a_picture_enters_export_as_it_enters_the_detector(detector_file, tmp_path, monkeypatch):
    """Calibration and accuracy see what the robot's detector sees, to the last bit or so."""
    export('--detector', detector_file, '--out', tmp_path / 'b')
    detector = load_detector(str(tmp_path / 'b'))
    image = random_pictures(3)[2]
    detector.detect_rgb(image)
    assert network_input(image, detector.config) == pytest.approx(detector._images, abs=1e-6)
    config = ClassifierConfig(16, ('a', 'b'), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    assert network_input(image, config).shape == (1, 3, 16, 16)


def test_folders_without_pictures(tmp_path):
    with pytest.raises(ConfigError, match='holds no JPEG and no PNG'):
        read_folder(tmp_path, 4)
    (tmp_path / 'broken.png').write_bytes(b'not a picture')
    with pytest.raises(ConfigError, match='broken.png does not decode'):
        read_folder(tmp_path, 4)


@pytest.mark.parametrize('name', ['yolo11n', 'yolo26n'])
def test_yolo_with_random_weights(name, tmp_path, capsys):
    """The whole way through ultralytics' exporter; both kinds of head."""
    pytest.importorskip('ultralytics', reason="workshop only: pip install '.[detectors]'")
    out = tmp_path / name
    words = ('--image-size', '64', '--precision', 'fp16,int8')
    assert export('--detector', f'{name}.yaml', *words, '--out', out) == 0
    bundle = open_bundle(out)
    assert bundle.config['head'] == {'yolo11n': 'dense', 'yolo26n': 'boxes'}[name]
    assert 'AGPL-3.0' in bundle.manifest.notes['licence']
    detector = load_detector(str(out), 'cpu-int8', score_threshold=0.0, max_detections=7)
    assert len(detector.detect_rgb(random_pictures(1)[0])) <= 7
    assert len(detector.labels) == 80
