"""Bundles of detectors and classifiers whose engine is a function of the test."""

import numpy as np

from vla_trt_ros.bundle import EngineEntry, SourceEntry, open_bundle
from vla_trt_ros.config import load_platform
from vla_trt_ros.datatypes import CameraFrame, TensorSpec
from vla_trt_ros.export.bundle_writer import BundleWriter

CPU = load_platform('cpu')


def write(out, config, output, images=None):
    """A bundle at ``out`` that promises ``output``; its graph is a few bytes of nothing."""
    family = 'classifier' if hasattr(config, 'of_class') else 'detector'
    stage = {'classifier': 'classify', 'detector': 'detect'}[family]
    images = images or TensorSpec('images', config.images.shape, 'float32')
    source = SourceEntry(stage, 'fp32', f'{stage}.onnx', (images,), (output,))
    entry = EngineEntry(stage, 'onnxruntime', 'fp32', f'{stage}.onnx', (images,), (output,))
    with BundleWriter(out) as writer:
        (writer.folder / f'{stage}.onnx').write_text('a graph')
        (writer.folder / 'README.md').write_text('a card')
        writer.commit(
            name=out.name,
            family=family,
            config=config,
            model_card='README.md',
            engines=[entry],
            sources=[source],
            created_by='a test',
            notes={},
        )
    return open_bundle(out)


class Engine:
    """Writes ``run(images)`` into the output."""

    def __init__(self, source, buffers, run):
        (images,), (output,) = source.inputs, source.outputs
        self.images = buffers[images.name] = np.full(images.shape, np.nan, np.float32)
        self.output = buffers[output.name] = np.full(output.shape, np.nan, np.float32)
        self.run, self.runs, self.closed = run, 0, False

    def enqueue(self, *, stream=None):
        assert not self.closed
        self.runs += 1
        self.output[:] = self.run(self.images)

    def close(self):
        self.closed = True


def engines(monkeypatch, run):
    """Every engine that is loaded from now on runs ``run``; they are listed."""
    made = []

    def load(backend, source, buffers):
        made.append(Engine(source, buffers, run))
        return made[-1]

    monkeypatch.setattr('vla_trt_ros.perception.engine.load_engine', load)
    return made


def frame(image, encoding='rgb8'):
    """A camera frame of uint8 [H, W, 3]."""
    height, width, _ = image.shape
    return CameraFrame(5, 6, 'camera', encoding, height, width, 3 * width, image.reshape(-1))
