"""A look on a GPU: the same scene as on the CPU, nothing of the frame touched or copied again.

The GPU is a stand-in that runs as late as it may, so a forgotten wait shows as wrong boxes; its
kernels are the real source on the processor, its engines functions of the test.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import gpu_bundles
import numpy as np
import perception_bundles as bundles
import pytest
from camera_pictures import raw_frame
from gpu_stand_in import Failure, LazyCuda, Lost
from host_kernel import HostCandidates, HostSquares, Queued

from vla_trt_ros.camera.upload import PLACES, CameraUpload
from vla_trt_ros.config import StageChoice, load_platform
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BackendError, BadImage, BundleError, DeviceLost, NotCapturable
from vla_trt_ros.gpu import cuda
from vla_trt_ros.perception import gpu_eyes
from vla_trt_ros.perception.choice import load_perception
from vla_trt_ros.perception.gpu_networks import Kernels
from vla_trt_ros.perception.spec import ClassifierConfig, DetectorConfig

H200 = load_platform('h200')
GPU = replace(H200, perception=StageChoice('onnx_graph', 'fp32'))
DETECTOR = DetectorConfig(320, ('cup', 'hand'), 'boxes')
BOXES = TensorSpec('boxes', (1, 4, 6), 'float32')
CLASSIFIER = ClassifierConfig(
    32,
    ('dark', 'light'),
    of_class=('cup',),
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.25),
    margin=0.1,
)
WORDS = TensorSpec('words', (1, 2), 'float32')
DENSE = TensorSpec('dense', (1, 6, 2100), 'float32')


def boxes(images):
    """Four boxes that depend on the picture: two cups, a hand and one of nothing."""
    mean = float(images.mean())
    rows = [
        [40, 60, 140, 200, 0.9, 0],
        [100, 90, 102, 92, 0.8, 0],
        [9, 9, 90, 90, mean, 1],
        [0] * 6,
    ]
    rows[0][0] += float(images[0, 0].mean())
    return np.array([rows], np.float32)


def crowd(images):
    """A dense output: nothing passes the score on a dark picture."""
    found = np.random.default_rng(1).uniform(0, 300, (1, 6, 2100)).astype(np.float32)
    found[0, 4:] *= images.mean() / 300
    return found


def words(images):
    """Logits of the first and the last pixel."""
    return np.array([[images[0, 0, 0, 0], images[0, 2, -1, -1]]], np.float32)


RUNS = {'detect of seer': boxes, 'detect of crowd': crowd, 'classify of': words}


@pytest.fixture
def gpu(monkeypatch):
    made = LazyCuda(target='sm_90')
    monkeypatch.setattr(cuda, 'runtime', lambda: made)
    kernels = Kernels(Queued(made, HostSquares()), Queued(made, HostCandidates()))
    monkeypatch.setattr(gpu_eyes, 'Kernels', lambda: kernels)
    return made


@pytest.fixture
def folder(tmp_path):
    bundles.write(tmp_path / 'seer', DETECTOR, BOXES)
    bundles.write(tmp_path / 'crowd', replace(DETECTOR, head='dense'), DENSE)
    bundles.write(tmp_path / 'shade', CLASSIFIER, WORDS)
    bundles.write(
        tmp_path / 'any', replace(CLASSIFIER, of_class=(), output='probabilities'), WORDS
    )
    return tmp_path


def on_cpu(monkeypatch, folder, detectors, classifiers):
    def load(backend, source, buffers):
        (run,) = [run for word, run in RUNS.items() if word in source.name]
        return bundles.Engine(source, buffers, run)

    monkeypatch.setattr('vla_trt_ros.perception.engine.load_engine', load)
    return load_perception(names(folder, detectors), names(folder, classifiers), 'cpu')


def on_gpu(monkeypatch, gpu, folder, detectors='seer', classifiers='', **options):
    made = gpu_bundles.engines(monkeypatch, gpu, RUNS)
    found = load_perception(names(folder, detectors), names(folder, classifiers), GPU, **options)
    gpu.log.clear()
    return found, made


def names(folder, text):
    return ','.join(str(folder / word) for word in text.split(',') if word)


def same(found, wanted):
    assert (found.width, found.height, found.crops) == (wanted.width, wanted.height, wanted.crops)
    assert len(found.findings) == len(wanted.findings)
    for ours, theirs in zip(found.findings, wanted.findings, strict=True):
        assert ours.box.label == theirs.box.label
        for name in ('x', 'y', 'width', 'height', 'score'):
            assert getattr(ours.box, name) == pytest.approx(getattr(theirs.box, name), abs=1e-3)
        assert [(g.classifier, g.label) for g in ours.guesses] == [
            (g.classifier, g.label) for g in theirs.guesses
        ]
        for mine, other in zip(ours.guesses, theirs.guesses, strict=True):
            assert mine.score == pytest.approx(other.score, abs=2e-2)  # a level of a pixel
    assert list(found.classes) == list(wanted.classes)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'yuyv', 'bayer_rggb8', 'mono8'])
@pytest.mark.parametrize(
    ('detectors', 'classifiers'), [('seer', ''), ('seer', 'shade'), ('crowd,seer', 'shade,any')]
)
def test_the_scene_is_that_of_the_cpu(monkeypatch, gpu, folder, encoding, detectors, classifiers):
    reference = on_cpu(monkeypatch, folder, detectors, classifiers)
    perception, _ = on_gpu(monkeypatch, gpu, folder, detectors, classifiers)
    camera = CameraUpload('base', mapped=False)
    for height, width, noise in (
        (480, 640, True),
        (480, 640, False),
        (24, 18, True),
        (720, 200, True),
    ):
        frame = raw_frame(encoding, height, width, pad=4, noise=noise)
        wanted = reference.look('base', frame)
        assert wanted.findings
        same(perception.look('base', camera.put(frame)), wanted)


def test_our_own_networks_see_the_robot_s_pictures_alike(monkeypatch, gpu):
    """The bundled networks on ONNX Runtime, fed once by OpenCV and once by the kernels."""
    cpu = load_perception('sim', platform='cpu', score_threshold=0.4)
    real = {
        f'{stage} of {network.name}': network.engine
        for stage, networks in (('detect', cpu.detectors), ('classify', cpu.classifiers))
        for network in networks
    }

    def runs(engine):
        def run(images):
            (given,), (made,) = engine.inputs.values(), engine.outputs.values()
            given[...] = images
            engine.enqueue()
            return made

        return run

    gpu_bundles.engines(monkeypatch, gpu, {word: runs(engine) for word, engine in real.items()})
    perception = load_perception('sim', platform=GPU, score_threshold=0.4)
    camera = CameraUpload('base', mapped=False)
    crops = 0
    for path in sorted((Path(__file__).parent / 'recorded').glob('*.jpg')):
        frame = bundles.frame(np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]))
        wanted = cpu.look('base', frame)
        same(perception.look('base', camera.put(frame)), wanted)
        crops += wanted.crops
    assert crops >= 5


def test_a_shared_frame_is_neither_read_by_the_host_nor_copied_again(monkeypatch, gpu, folder):
    perception, _ = on_gpu(monkeypatch, gpu, folder, 'crowd,seer', 'shade,any')
    frame = CameraUpload('base', mapped=False).put(raw_frame('rgb8', 480, 640, noise=True))
    gpu.log.clear()
    scene = perception.look('base', replace(frame, data=None))
    assert scene.uploads == 0
    assert 'upload' not in gpu.log
    assert scene.crops
    # Two waits: for boxes, for labels.
    assert gpu.log.count('wait') == 2
    # A crop is a kernel, a graph and a copy of two numbers; one box is too small to be one.
    assert gpu.log.count('kernel') == gpu.log.count('graph') == 2 + scene.crops - 1


def test_a_dense_output_stays_on_the_gpu(monkeypatch, gpu, folder):
    copied, copy = [], gpu.cudaMemcpyAsync

    def remember(to, source, count, kind, stream):
        if kind == 2:
            copied.append(count)
        return copy(to, source, count, kind, stream)

    monkeypatch.setattr(gpu, 'cudaMemcpyAsync', remember)
    perception, _ = on_gpu(monkeypatch, gpu, folder, 'crowd')
    assert perception.look('base', raw_frame('rgb8', 480, 640, noise=True)).findings
    assert set(copied) == {4}  # how many there are; rows come by themselves


def test_a_frame_of_another_process_is_uploaded_once(monkeypatch, gpu, folder):
    perception, _ = on_gpu(monkeypatch, gpu, folder, 'seer', 'shade')
    for _ in range(3):
        assert perception.look('base', raw_frame('rgb8', 48, 64)).uploads == 1
    assert gpu.log.count('upload') == 3


def test_nothing_found_and_nothing_to_classify(monkeypatch, gpu, folder):
    perception, _ = on_gpu(monkeypatch, gpu, folder, 'crowd', 'shade', score_threshold=0.99)
    frame = raw_frame('rgb8', 48, 64)
    frame.data[:] = 0
    frame = CameraUpload('base', mapped=False).put(frame)
    gpu.log.clear()
    scene = perception.look('base', frame)
    assert (scene.findings, scene.crops, dict(scene.classes)) == ((), 0, {})
    assert gpu.log.count('wait') == 1


def test_thousands_of_boxes_are_bounded(monkeypatch, gpu, folder):
    perception, _ = on_gpu(
        monkeypatch, gpu, folder, 'crowd', 'any', score_threshold=0.0, max_detections=7
    )
    frame = raw_frame('rgb8', 480, 640)
    frame.data[:] = 255
    scene = perception.look('base', frame)
    assert len(scene.findings) == 7
    assert scene.crops <= 7


def test_looks_do_not_wait_for_the_policy_s_stream_and_are_not_urgent(monkeypatch, gpu, folder):
    policy = cuda.Stream(urgency=1)
    perception, _ = on_gpu(monkeypatch, gpu, folder, 'seer', 'shade')
    gpu.put(policy.handle, lambda: pytest.fail('the policy was made to run'))
    perception.look('base', raw_frame('rgb8', 48, 64))
    assert gpu.waiting(policy.handle) == 1
    assert gpu.priorities == {policy.handle: -1}  # the others have the least there is


def test_frames_are_awaited_before_and_released_after_also_where_a_launch_fails(
    monkeypatch, gpu, folder
):
    perception, _ = on_gpu(monkeypatch, gpu, folder)
    order = []
    frame = CameraUpload('base', mapped=False).put(raw_frame('rgb8', 48, 64))
    lease = SimpleNamespace(
        wait=lambda stream: order.append('wait'), read=lambda stream: order.append('read')
    )
    frame = replace(frame, gpu=replace(frame.gpu, lease=lease))
    monkeypatch.setattr(gpu, 'cudaGraphLaunch', lambda graph, stream: (Failure(2),))
    with pytest.raises(BackendError, match='launching a CUDA graph.*The GPU is full'):
        perception.look('base', frame)
    assert order == ['wait', 'read']


def test_a_camera_that_has_no_place_left_on_the_gpu(monkeypatch, gpu, folder):
    perception, _ = on_gpu(monkeypatch, gpu, folder)
    perception.look('base', raw_frame('rgb8', 8, 8))
    camera = perception._eyes._uploads['base']
    held = [camera.put(raw_frame('rgb8', 8, 8)) for _ in range(PLACES)]
    with pytest.raises(BadImage, match='camera base: 6 frames are on the GPU and all are held'):
        perception.look('base', raw_frame('rgb8', 8, 8))
    held.clear()
    assert perception.look('base', raw_frame('rgb8', 8, 8)).uploads == 1


def test_a_broken_frame_is_told_as_on_the_cpu(monkeypatch, gpu, folder):
    perception, _ = on_gpu(monkeypatch, gpu, folder)
    frame = raw_frame('rgb8', 48, 64)
    with pytest.raises(BadImage, match='truncated'):
        perception.look('base', replace(frame, data=frame.data[:99]))


def test_a_lost_device(monkeypatch, gpu, folder):
    perception, _ = on_gpu(monkeypatch, gpu, folder)
    gpu.fail, gpu.failure = 'cudaEventSynchronize', Lost(700)
    with pytest.raises(DeviceLost, match='IllegalAddress.*lost to this process: restart the node'):
        perception.look('base', raw_frame('rgb8', 48, 64))


def test_no_room_for_the_classifier_frees_the_detector(monkeypatch, gpu, folder):
    made = gpu_bundles.engines(monkeypatch, gpu, RUNS)
    begin, allocate = [], gpu.cudaMalloc

    def full(count):
        begin.append(count)
        return (gpu.failure, None) if len(begin) > 4 else allocate(count)

    monkeypatch.setattr(gpu, 'cudaMalloc', full)
    with pytest.raises(BackendError, match='allocating .* bytes on the GPU: .*The GPU is full'):
        load_perception(names(folder, 'seer'), names(folder, 'shade'), GPU)
    assert made
    assert all(engine.closed for engine in made)


def test_an_engine_on_the_cpu_is_refused(monkeypatch, gpu, folder):
    made = gpu_bundles.engines(monkeypatch, gpu, RUNS)
    monkeypatch.setattr(gpu_bundles.GpuEngine, 'on_gpu', False)
    with pytest.raises(BackendError, match='seer: its engine runs on the CPU; choose a platform'):
        load_perception(names(folder, 'seer'), '', GPU)
    assert made[0].closed


def test_an_engine_that_cannot_be_captured_is_queued_each_time(monkeypatch, gpu, folder):
    def refuse(self, *, stream=None):
        if gpu.capture is not None:
            raise NotCapturable('not this one')
        enqueue(self, stream=stream)

    enqueue = gpu_bundles.GpuEngine.enqueue
    monkeypatch.setattr(gpu_bundles.GpuEngine, 'enqueue', refuse)
    reference = on_cpu(monkeypatch, folder, 'crowd', 'shade')
    perception, _ = on_gpu(monkeypatch, gpu, folder, 'crowd', 'shade')
    frame = raw_frame('rgb8', 480, 640, noise=True)
    same(perception.look('base', frame), reference.look('base', frame))
    assert 'graph' not in gpu.log


def test_a_bundle_without_an_engine_for_this_gpu(folder):
    platform = replace(H200, perception=StageChoice('tensorrt', 'fp16'))
    with pytest.raises(BundleError, match='no detect engine for tensorrt fp16.*vla-trt build'):
        load_perception(names(folder, 'seer'), '', platform)
    halves = replace(H200, perception=StageChoice('onnx_graph', 'fp16'))
    with pytest.raises(BundleError, match='no fp16 ONNX of detect, only fp32; export it again'):
        load_perception(names(folder, 'seer'), '', halves)


def test_closing_frees_graphs_before_engines(monkeypatch, gpu, folder):
    perception, made = on_gpu(monkeypatch, gpu, folder, 'seer', 'shade')
    destroyed = []
    for chain in (
        n._run._chain for n in (*perception._eyes.detectors, *perception._eyes.classifiers)
    ):
        close = chain.close
        monkeypatch.setattr(
            chain,
            'close',
            lambda close=close: (destroyed.append(any(e.closed for e in made)), close()),
        )
    perception.close()
    assert destroyed == [False, False]
    assert all(engine.closed for engine in made)
