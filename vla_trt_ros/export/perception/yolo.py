"""Ultralytics' networks as ONNX, through ultralytics' own exporter.

ultralytics is AGPL-3.0, and its makers hold that weights trained with it are too: read its licence
before you ship what comes out. It is needed here in the workshop alone, never on a robot.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import onnx

from vla_trt_ros.errors import BundleError, ConfigError

SUFFIXES = ('.pt', '.yaml')
TASKS = {'detector': 'detect', 'classifier': 'classify'}
OPSET = 20


def yolo_to_onnx(source: str, kind: str, side: int) -> onnx.ModelProto:
    """Weights (.pt), or a network of ultralytics by its YAML (random weights), for one square
    float32 picture of ``side`` pixels, its labels in the metadata.

    A detector's head without suppression is taken where the network has one (yolo26, yolov10).
    ConfigError where ultralytics is missing, the file is, or the network does another task.
    """
    if find_spec('ultralytics') is None:
        raise ConfigError(
            f'{source} needs ultralytics, which is not installed: pip install '
            "'.[detectors]' (AGPL-3.0: read its licence first)."
        )
    # A YAML may be one of ultralytics' own, which it finds by name.
    path = Path(source)
    if path.suffix == '.pt' and not path.is_file():
        raise ConfigError(f'{source} does not exist; nothing is downloaded here.')
    with tempfile.TemporaryDirectory(prefix='yolo.') as folder:
        # The exporter writes beside what it reads, and asks the network for what it lacks.
        if path.is_file():
            source = str(shutil.copy(path, folder))
        settings = {
            'YOLO_AUTOINSTALL': 'false',
            'YOLO_OFFLINE': 'true',
            'YOLO_CONFIG_DIR': folder,
            'YOLO_VERBOSE': 'false',
        }
        with _environment(settings), _inside(folder):
            return _export(source, kind, side)


def _export(source: str, kind: str, side: int) -> onnx.ModelProto:
    try:
        version('torchvision')
    except PackageNotFoundError as error:
        raise ConfigError(
            'ultralytics needs torchvision to be there, in the version that fits this torch: pip '
            'install torchvision.'
        ) from error
    from ultralytics import YOLO

    try:
        network = YOLO(source)
    except Exception as error:  # whatever unpickling or its YAML reader raises
        raise BundleError(f'ultralytics cannot read {source}: {error}') from error
    if network.task != TASKS[kind]:
        raise ConfigError(
            f'{source} is for task {network.task}, a {kind} for {TASKS[kind]}; choose another '
            'network, or the other of --detector and --classifier.'
        )
    written = network.export(
        format='onnx',
        imgsz=side,
        opset=OPSET,
        simplify=False,
        nms=False,  # the head that needs none, where there is one; never suppression in the graph
        device='cpu',
        verbose=False,
    )
    return onnx.load(written)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _inside(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
