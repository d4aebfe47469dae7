"""A detector: camera frame in, labelled boxes out."""

from __future__ import annotations

import numpy as np

from vla_trt_ros.bundle import Bundle, open_bundle
from vla_trt_ros.camera.decode import to_rgb
from vla_trt_ros.config import PlatformConfig, find_file, load_platform
from vla_trt_ros.datatypes import CameraFrame, Float32Array, Uint8Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.perception.detections import Detections
from vla_trt_ros.perception.engine import open_engine
from vla_trt_ros.perception.heads import decode
from vla_trt_ros.perception.spec import DetectorConfig, check_share, read_config
from vla_trt_ros.preprocess.letterbox import Letterbox, draw_letterbox, letterbox

_SCALE = np.float32(1 / 255)


class Detector:
    """One detector of a bundle, loaded. Used by one thread at a time."""

    def __init__(
        self,
        bundle: Bundle,
        platform: PlatformConfig,
        *,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        threads: int = 1,
    ) -> None:
        """``score_threshold`` and ``max_detections`` replace the bundle's own; ``threads`` are
        those of a CPU engine: one, for the policy has the others.

        BundleError or BackendError where the bundle does not fit, ConfigError for a bad number.
        """
        self.config = read_config(bundle, DetectorConfig)
        self.name = bundle.name
        self.sha256 = bundle.sha256
        config = self.config
        self.score_threshold = (
            config.score_threshold if score_threshold is None else score_threshold
        )
        self.max_detections = config.max_detections if max_detections is None else max_detections
        check_share('score_threshold', self.score_threshold)
        if self.max_detections < 1:
            raise ConfigError(f'max_detections {self.max_detections} must be 1 or more.')
        self.engine, self._images, self._output = open_engine(bundle, 'detect', platform, threads)
        self._square = np.empty((self.image_size, self.image_size, 3), np.uint8)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; `Detections.labels` are places in it."""
        return self.config.labels

    @property
    def image_size(self) -> int:
        """Side of the square that pictures are fitted into, pixels."""
        return self.config.image_size

    def detect(self, frame: CameraFrame) -> Detections:
        """What is in ``frame``, in pixels of it. BadImage for one that does not decode."""
        return self.detect_rgb(to_rgb(frame))

    def detect_rgb(self, image: Uint8Array) -> Detections:
        """`detect` of pixels that are decoded already, uint8 [H, W, 3]."""
        place = letterbox(image.shape[1], image.shape[0], self.image_size)
        draw_letterbox(image, place, self._square)
        np.multiply(self._square.transpose(2, 0, 1), _SCALE, out=self._images[0])
        self.engine.enqueue()
        found = decode(self._output, self.config, self.score_threshold, self.max_detections)
        return self.placed(found, place)

    @property
    def levels(self) -> Float32Array:
        """What the network sees of each level 0 to 255 of red, green and blue: [3, 256]."""
        return np.tile(np.arange(256, dtype=np.float32) * _SCALE, (3, 1))

    def placed(self, found: Detections, place: Letterbox) -> Detections:
        """``found`` in the network's square, in pixels of the picture that was at ``place``."""
        return Detections(place.to_picture(found.boxes), found.scores, found.labels)

    def warm_up(self) -> None:
        """Run once on grey, so that the first frame takes no longer than the next ones."""
        self.detect_rgb(np.full((8, 8, 3), 114, np.uint8))

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        self.engine.close()


def load_detector(
    bundle: str,
    platform: str | PlatformConfig = 'cpu',
    *,
    score_threshold: float | None = None,
    max_detections: int | None = None,
    threads: int = 1,
) -> Detector:
    """The detector of bundle ``bundle``, a name in bundles/ or a path, ready to run.

    ``platform`` is a file of config/platforms, a path or what was read of one. Errors: as
    `Detector`.
    """
    chosen = load_platform(platform) if isinstance(platform, str) else platform
    detector = Detector(
        open_bundle(find_file('bundles', bundle, '')),
        chosen,
        score_threshold=score_threshold,
        max_detections=max_detections,
        threads=threads,
    )
    detector.warm_up()
    return detector
