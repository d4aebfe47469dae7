"""Pictures of a folder as a network sees them, to calibrate on and to judge by."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vla_trt_ros.datatypes import Float32Array, Uint8Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.perception.spec import ClassifierConfig, DetectorConfig
from vla_trt_ros.preprocess.crop import stretch
from vla_trt_ros.preprocess.letterbox import draw_letterbox, letterbox

SUFFIXES = ('.jpg', '.jpeg', '.png')


def read_folder(folder: Path, count: int) -> list[Uint8Array]:
    """Up to ``count`` pictures of ``folder`` and below, spread evenly over their names: uint8
    [H, W, 3], RGB. ConfigError where there are none, or one does not decode.
    """
    if not folder.is_dir():
        raise ConfigError(f'{folder} is no folder; name one with JPEG or PNG pictures.')
    paths = sorted(p for p in folder.rglob('*') if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ConfigError(f'{folder} holds no JPEG and no PNG pictures; name another folder.')
    chosen = [
        paths[i * len(paths) // min(count, len(paths))] for i in range(min(count, len(paths)))
    ]
    found = []
    for path in chosen:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if pixels is None:
            raise ConfigError(f'{path} does not decode; remove it from the folder.')
        found.append(np.asarray(pixels, np.uint8))
    return found


def random_pictures(count: int, seed: int = 0) -> list[Uint8Array]:
    """Noise, coarse and fine: for networks of random weights, which know no better."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(count):
        side = 8 << (i % 4)
        coarse = random.integers(0, 256, (side, side, 3), np.uint8)
        found.append(np.asarray(cv2.resize(coarse, (320, 240)), np.uint8))
    return found


def network_input(image: Uint8Array, config: DetectorConfig | ClassifierConfig) -> Float32Array:
    """float32 [1, 3, side, side] of a whole picture, as detector.py and classifier.py make it."""
    side = config.image_size
    if isinstance(config, DetectorConfig):
        square = np.empty((side, side, 3), np.uint8)
        draw_letterbox(image, letterbox(image.shape[1], image.shape[0], side), square)
        scaled = square.astype(np.float32) / 255
    else:
        square = stretch(image, (0, 0, image.shape[1], image.shape[0]), side)
        mean, std = (np.array(numbers, np.float32) for numbers in (config.mean, config.std))
        scaled = (square.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), dtype=np.float32)[None]
