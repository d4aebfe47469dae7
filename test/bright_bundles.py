"""Detectors and classifiers of a few numbers, whose answers a reader can work out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 32
PERSON = (8.0, 4.0, 24.0, 20.0)
"""Left, upper, right, lower in the network's square."""
CUP = (0.0, 16.0, 16.0, 32.0)


def bright_detector(
    folder: Path, labels: tuple[str, ...] = ('person', 'cup'), boxes: int = 2, **config: object
) -> Path:
    """A bundle that sees a person, at PERSON, with the mean brightness of the picture as its
    score, and a cup, at CUP, with half of it. More ``boxes`` are more cups.
    """
    base, slope = np.zeros((1, boxes, 6), np.float32), np.zeros((1, boxes, 6), np.float32)
    base[0, :, :4], base[0, :, 5], slope[0, :, 4] = CUP, 1, 0.5
    base[0, 0, :4], base[0, 0, 5], slope[0, 0, 4] = PERSON, 0, 1.0
    nodes = [
        helper.make_node('ReduceMean', ['images'], ['mean'], keepdims=0),
        helper.make_node('Mul', ['slope', 'mean'], ['scores']),
        helper.make_node('Add', ['base', 'scores'], ['found']),
    ]
    constants = {'base': base, 'slope': slope}
    given = {'image_size': SIDE, 'labels': list(labels), 'head': 'boxes', **config}
    return _bundle(folder, 'detector', 'detect', nodes, constants, [1, boxes, 6], given)


def bright_classifier(
    folder: Path,
    labels: tuple[str, ...] = ('dark', 'light'),
    of_class: tuple[str, ...] = ('person',),
) -> Path:
    """A bundle that calls a crop light, the surer the brighter, and dark below half."""
    constants = {
        'slope': np.array([[0.0, 8.0]], np.float32),
        'base': np.array([[4.0, 0.0]], np.float32),
    }
    nodes = [
        helper.make_node('ReduceMean', ['images'], ['mean'], keepdims=0),
        helper.make_node('Mul', ['slope', 'mean'], ['scores']),
        helper.make_node('Add', ['base', 'scores'], ['found']),
    ]
    given = {'image_size': SIDE, 'labels': list(labels), 'of_class': list(of_class)}
    return _bundle(folder, 'classifier', 'classify', nodes, constants, [1, 2], given)


def dense_detector(folder: Path, **config: object) -> Path:
    """A bundle of head ``dense``, 16 places: a cup of 8 x 8 pixels around the middle of each, its
    score the mean brightness there.
    """
    means = np.full((1, 3, 8, 8), 1 / (3 * 64), np.float32)
    middles = np.arange(4, SIDE, 8, dtype=np.float32)
    y, x = np.meshgrid(middles, middles, indexing='ij')
    boxes = np.stack([x.ravel(), y.ravel(), *np.full((2, 16), 8.0)])[None]
    nodes = [
        helper.make_node('Conv', ['images', 'means'], ['cells'], strides=[8, 8]),
        helper.make_node('Reshape', ['cells', 'flat'], ['scores']),
        helper.make_node('Mul', ['scores', 'none'], ['nobody']),
        helper.make_node('Concat', ['boxes', 'nobody', 'scores'], ['found'], axis=1),
    ]
    constants = {'means': means, 'flat': np.array([1, 1, 16]), 'none': np.float32(0)}
    constants['boxes'] = boxes.astype(np.float32)
    given = {'image_size': SIDE, 'labels': ['person', 'cup'], 'head': 'dense', **config}
    return _bundle(folder, 'detector', 'detect', nodes, constants, [1, 6, 16], given)


def _bundle(
    folder: Path,
    family: str,
    stage: str,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    shape: list[int],
    config: dict[str, object],
) -> Path:
    folder.mkdir(parents=True)
    side = [1, 3, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        folder.name,
        [helper.make_tensor_value_info('images', TensorProto.FLOAT, side)],
        [helper.make_tensor_value_info('found', TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    data = model.SerializeToString()
    (folder / 'net.onnx').write_bytes(data)
    (folder / 'README.md').write_text('A few numbers, for tests.\n')
    engine = {
        'stage': stage,
        'backend': 'onnxruntime',
        'precision': 'fp32',
        'file': 'net.onnx',
        'inputs': [{'name': 'images', 'shape': side, 'dtype': 'float32'}],
        'outputs': [{'name': 'found', 'shape': shape, 'dtype': 'float32'}],
    }
    manifest = {
        'format_version': 1,
        'name': folder.name,
        'family': family,
        'created_by': 'a test',
        'model_card': 'README.md',
        'engines': [engine],
        'sources': [{k: engine[k] for k in ('stage', 'precision', 'file', 'inputs', 'outputs')}],
        'files': {
            'net.onnx': {'sha256': hashlib.sha256(data).hexdigest(), 'bytes': len(data)},
        },
        'config': config,
    }
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    return folder
