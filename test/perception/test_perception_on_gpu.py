"""Looks on a real GPU, beside one another and beside a busy stream: the scenes of the CPU.

test_gpu_eyes.py and test_candidates.py hold the same logic and kernels without a GPU.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[cuda-graph]'")
pytest.importorskip('onnx', reason="needs onnx: pip install '.[cuda-graph]'")

import perception_bundles as bundles  # noqa: E402
from bright_bundles import bright_classifier, dense_detector  # noqa: E402
from camera_pictures import raw_frame  # noqa: E402
from gpu_there import needs_gpu  # noqa: E402
from test_candidates import CONFIG, output  # noqa: E402

from vla_trt_ros.camera.upload import CameraUpload  # noqa: E402
from vla_trt_ros.config import StageChoice, load_platform  # noqa: E402
from vla_trt_ros.gpu import cuda  # noqa: E402
from vla_trt_ros.perception.candidates import Candidates  # noqa: E402
from vla_trt_ros.perception.choice import load_perception  # noqa: E402
from vla_trt_ros.perception.heads import dense_boxes  # noqa: E402

pytestmark = needs_gpu

RECORDED = sorted((Path(__file__).parent / 'recorded').glob('*.jpg'))


def platform(precision):
    """This GPU, detectors by torch's operations."""
    return replace(
        load_platform('h200'),
        target=cuda.device_target(),
        vision=StageChoice('cuda_graph', 'bf16'),
        prefix=StageChoice('cuda_graph', 'bf16'),
        denoise=StageChoice('cuda_graph', 'bf16'),
        perception=StageChoice('onnx_graph', precision),
    )


def frames():
    for path in RECORDED:
        yield bundles.frame(np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]))


@pytest.fixture(scope='module')
def perception():
    found = load_perception('sim', platform=platform('fp16'), score_threshold=0.4)
    yield found
    found.close()


@pytest.fixture(scope='module')
def wanted():
    pytest.importorskip('onnxruntime', reason='the reference runs on it')
    reference = load_perception('sim', platform='cpu', score_threshold=0.4)
    scenes = [reference.look('base', frame) for frame in frames()]
    reference.close()
    return scenes


def same(found, wanted):
    """Every label is once in these pictures; scores that are close may change places."""
    pairs = [sorted(s.findings, key=lambda f: f.box.label) for s in (found, wanted)]
    assert [f.box.label for f in pairs[0]] == [f.box.label for f in pairs[1]]
    for ours, theirs in zip(*pairs, strict=True):
        for name in ('x', 'y', 'width', 'height'):
            assert getattr(ours.box, name) == pytest.approx(getattr(theirs.box, name), abs=2.0)
        assert ours.box.score == pytest.approx(theirs.box.score, abs=0.02)
        assert [(g.classifier, g.label) for g in ours.guesses] == [
            (g.classifier, g.label) for g in theirs.guesses
        ]


def test_scenes_of_the_robot_s_cameras(perception, wanted):
    camera, crops = CameraUpload('base'), 0
    for frame, want in zip(frames(), wanted, strict=True):
        assert want.findings
        scene = perception.look('base', replace(camera.put(frame), data=None))
        same(scene, want)
        assert scene.uploads == 0
        crops += scene.crops
    assert crops


def test_frames_that_come_without_are_uploaded_once(perception, wanted):
    for frame, want in zip(frames(), wanted, strict=True):
        scene = perception.look('wrist', frame)
        same(scene, want)
        assert scene.uploads == (0 if cuda.is_integrated() else 1)


def test_beside_a_stream_that_is_always_busy_and_urgent(perception, wanted):
    """Both go on: neither waits for the other for ever, and the boxes stay right."""
    a = torch.randn(4096, 4096, device='cuda', dtype=torch.bfloat16)
    busy = cuda.Stream(urgency=1)
    with torch.cuda.stream(torch.cuda.ExternalStream(busy.handle)):
        for _ in range(2000):
            torch.mm(a, a)
    for frame, want in zip(frames(), wanted, strict=True):
        same(perception.look('base', frame), want)
    busy.wait()


def test_looks_take_no_memory(perception):
    (frame, *_) = frames()
    camera = CameraUpload('base')
    for i in range(60):
        perception.look('base', camera.put(frame))
        if i == 10:
            before = cuda.memory()[0]
    assert cuda.memory()[0] == before


@pytest.mark.parametrize('encoding', ['yuyv', 'bayer_rggb8'])
def test_other_encodings(perception, encoding):
    camera = CameraUpload('base')
    scene = perception.look('base', camera.put(raw_frame(encoding, 480, 640, noise=True)))
    assert (scene.width, scene.height) == (640, 480)


@pytest.mark.parametrize('precision', ['fp32'])
def test_float32(wanted, precision):
    perception = load_perception('sim', platform=platform(precision), score_threshold=0.4)
    for frame, want in zip(frames(), wanted, strict=True):
        same(perception.look('base', frame), want)
    perception.close()


def test_dense_head_and_a_classifier(tmp_path):
    detector = str(dense_detector(tmp_path / 'dense'))
    classifier = str(bright_classifier(tmp_path / 'shade', of_class=('cup',)))
    perception = load_perception(detector, classifier, platform('fp32'), score_threshold=0.5)
    reference = load_perception(detector, classifier, 'cpu', score_threshold=0.5)
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:32, 32:48] = 255  # the place in row 1, column 2
    image[48:64, 0:16] = 200
    for picture in (image, image // 4):
        found, wanted = (p.look('base', bundles.frame(picture)) for p in (perception, reference))
        assert [(f.box.label, f.box.x, f.box.y) for f in found.findings] == [
            (f.box.label, f.box.x, f.box.y) for f in wanted.findings
        ]
        assert [f.guesses[0].label for f in found.findings] == ['light'] * found.crops
    assert reference.look('base', bundles.frame(image)).crops == 2
    perception.close()
    reference.close()


@pytest.mark.parametrize(('places', 'sure'), [(8400, 40), (8400, 5000), (8400, 0)])
def test_candidates(places, sure):
    array = output(places, sure)
    dense = cuda.pinned(array.shape, np.float32)
    dense[...] = array
    candidates, stream = Candidates('test', dense, 0.5), cuda.Stream()
    for _ in range(2):
        candidates.mirrors['dense'].upload(dense, stream.handle)
        candidates.enqueue(stream=stream.handle)
        candidates.mirrors['count'].download(candidates.outputs['count'], stream.handle)
        stream.wait()
    found, want = candidates.detections(CONFIG, 300), dense_boxes(array, CONFIG, 0.5, 300)
    for name in ('boxes', 'scores', 'labels'):
        np.testing.assert_array_equal(getattr(found, name), getattr(want, name))
