"""A classifier: boxes of a camera frame in, the probability of each label out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_trt_ros.bundle import Bundle, open_bundle
from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.config import PlatformConfig, find_file, load_platform
from vla_trt_ros.datatypes import CameraFrame, Float32Array, Uint8Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.perception.detections import Int64Array
from vla_trt_ros.perception.engine import open_engine
from vla_trt_ros.perception.spec import ClassifierConfig, read_config
from vla_trt_ros.preprocess.crop import crop_corners, stretch

NONE = -1
"""Label of a box that shows nothing to classify."""


class Classifier:
    """One classifier of a bundle, loaded. Used by one thread at a time."""

    def __init__(self, bundle: Bundle, platform: PlatformConfig, *, threads: int = 1) -> None:
        """``threads`` are those of a CPU engine. BundleError or BackendError where the bundle
        does not fit.
        """
        self.config = read_config(bundle, ClassifierConfig)
        self.name = bundle.name
        self.sha256 = bundle.sha256
        self.engine, self._images, self._output = open_engine(
            bundle, 'classify', platform, threads
        )
        scale = 1.0 / np.asarray(self.config.std, np.float32)
        self._scale = (scale / np.float32(255))[:, None, None]
        self._offset = (np.asarray(self.config.mean, np.float32) * scale)[:, None, None]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns of what `classify` returns."""
        return self.config.labels

    @property
    def of_class(self) -> tuple[str, ...]:
        """Labels of a detector whose boxes it is for; empty: any."""
        return self.config.of_class

    @property
    def image_size(self) -> int:
        """Side of the square that crops are stretched to, pixels."""
        return self.config.image_size

    def class_ids(self, detector_labels: Sequence[str]) -> tuple[int, ...]:
        """Places of `of_class` in a detector's labels: whose boxes to give to `classify`.

        ConfigError for a class that the detector lacks.
        """
        known = list(detector_labels)
        for name in self.of_class:
            if name not in known:
                raise ConfigError(
                    f'classifier {self.name!r} is for {name!r}, the detector knows only '
                    f'{", ".join(known)}; choose another classifier or detector.'
                )
        return tuple(known.index(name) for name in self.of_class or known)

    def classify(self, frame: CameraFrame, boxes: Float32Array) -> Float32Array:
        """Probabilities, float32 [N, labels], of ``boxes``, float32 [N, 4] in pixels of ``frame``.

        A box of which less than 4 x 4 pixels are in the picture has a row of zeros: no label. Each
        box costs a run of the network. BadImage for a frame that does not decode.
        """
        return self.classify_rgb(to_rgb(frame), boxes)

    def classify_rgb(self, image: Uint8Array, boxes: Float32Array) -> Float32Array:
        """`classify` of pixels that are decoded already, uint8 [H, W, 3]."""
        found = np.zeros((len(boxes), len(self.labels)), np.float32)
        height, width = image.shape[:2]
        for row, box in zip(found, boxes.tolist(), strict=True):
            corners = crop_corners(tuple(box), width, height, self.config.margin)
            if corners is None:
                continue
            pixels = stretch(image, corners, self.image_size).transpose(2, 0, 1)
            np.multiply(pixels, self._scale, out=self._images[0])
            self._images[0] -= self._offset
            self.engine.enqueue()
            row[:] = self._output[0]
            self.finish(row)
        return found

    @property
    def levels(self) -> Float32Array:
        """What the network sees of each level 0 to 255 of red, green and blue: [3, 256]."""
        levels = np.arange(256, dtype=np.float32) * self._scale[:, 0]
        return np.asarray(levels - self._offset[:, 0], np.float32)

    def finish(self, row: Float32Array) -> None:
        """What the network says of one box, [labels], becomes probabilities."""
        if self.config.output == 'logits':
            np.exp(row - row.max(), out=row)
            row /= row.sum()

    def warm_up(self) -> None:
        """Run once on grey, so that the first frame takes no longer than the next ones."""
        self.classify_rgb(np.full((8, 8, 3), 114, np.uint8), np.array([[0, 0, 8, 8]], np.float32))

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        self.engine.close()


def best_labels(probabilities: Float32Array) -> tuple[Int64Array, Float32Array]:
    """Place of the likeliest label of each row, NONE for a row of zeros, and its probability."""
    if not probabilities.size:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    scores = probabilities.max(axis=1)
    return np.where(scores > 0, probabilities.argmax(axis=1), NONE), scores


def load_classifier(
    bundle: str, platform: str | PlatformConfig = 'cpu', *, threads: int = 1
) -> Classifier:
    """The classifier of bundle ``bundle``, a name in bundles/ or a path, ready to run.

    ``platform`` is a file of config/platforms, a path or what was read of one. Errors: as
    `Classifier`.
    """
    chosen = load_platform(platform) if isinstance(platform, str) else platform
    classifier = Classifier(open_bundle(find_file('bundles', bundle, '')), chosen, threads=threads)
    classifier.warm_up()
    return classifier
