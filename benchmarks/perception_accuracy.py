"""How good the simulator's detector and classifiers are on scenes that nobody trained on, at every
precision of their bundles -> benchmarks/perception-accuracy.json; the detector's one figure for
the robot's cameras in float32 -> ``map50`` of benchmarks/perception.json

  python benchmarks/perception_accuracy.py --weights runs/detector/detector.pt

Scenes are seeds 910000 and up, pictures of the robot's two cameras at 224 x 224; ``every_view``
adds other standpoints and sizes. PyTorch's own figure needs the weights of the training; the
bundle alone gives the others. ONNX Runtime on a CPU runs all of them, whatever they are built for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault('MUJOCO_GL', 'osmesa')
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / 'training'), str(ROOT / 'benchmarks')]

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from crops import boxes_with_state  # noqa: E402
from records import put  # noqa: E402
from scenes import SEEDS, Scene, scenes  # noqa: E402

from vla_trt_ros.bundle import open_bundle  # noqa: E402
from vla_trt_ros.config import find_file  # noqa: E402
from vla_trt_ros.export.perception.accuracy import mean_average_precision  # noqa: E402
from vla_trt_ros.export.perception.parity import runner  # noqa: E402
from vla_trt_ros.export.perception.pictures import network_input  # noqa: E402
from vla_trt_ros.perception.detections import Detections  # noqa: E402
from vla_trt_ros.perception.heads import decode  # noqa: E402
from vla_trt_ros.perception.spec import (  # noqa: E402
    ClassifierConfig,
    DetectorConfig,
    read_config,
)
from vla_trt_ros.preprocess.crop import crop_corners, stretch  # noqa: E402
from vla_trt_ros.preprocess.letterbox import letterbox  # noqa: E402

LEAST = 0.01
"""Score of the boxes that average precision is made of."""


def graphs(name: str) -> tuple[Any, dict[str, Any]]:
    """Bundle, and a function of one input for each graph in it."""
    bundle = open_bundle(find_file('bundles', name, ''))
    files = {e.file for e in bundle.manifest.engines if e.backend == 'onnxruntime'}
    files |= {s.file for s in bundle.manifest.sources}
    return bundle, {f: runner(onnx.load(bundle.file(f))) for f in sorted(files)}


def pytorch(weights: Path, labels: int) -> Any:
    """The trained network itself, as a function of one input."""
    import torch

    from vla_trt_ros.export.perception.network import FinalBoxes, ObjectDetector

    torch.set_num_threads(1)
    network = ObjectDetector(labels)
    network.load_state_dict(torch.load(weights, map_location='cpu', weights_only=True))
    final = FinalBoxes(network).eval()

    def run(image: Any) -> Any:
        with torch.no_grad():
            return final(torch.from_numpy(image)).numpy()

    return run


def detector_accuracy(name: str, weights: Path | None, views: dict[str, list[Scene]]) -> Any:
    """Average precision at an IoU of 0.5, per set of pictures and graph."""
    bundle, found = graphs(name)
    config = read_config(bundle, DetectorConfig)
    runners = {'pytorch': pytorch(weights, len(config.labels)), **found} if weights else found
    result: dict[str, Any] = {}
    for view, pictures in views.items():
        rows = result[view] = {'pictures': len(pictures)}
        for graph, run in runners.items():
            made, truth = [], []
            for scene in pictures:
                boxes = decode(run(network_input(scene.image, config)), config, LEAST, 100)
                height, width = scene.image.shape[:2]
                place = letterbox(width, height, config.image_size)
                made.append(Detections(place.to_picture(boxes.boxes), boxes.scores, boxes.labels))
                truth.append((scene.boxes, scene.labels))
            accuracy = mean_average_precision(made, truth, config.labels)
            rows['objects'] = accuracy.objects
            rows[graph] = {
                'map50': round(accuracy.mean, 4),
                'per_label': {k: round(v, 4) for k, v in accuracy.per_label.items()},
            }
            print(view, graph, rows[graph]['map50'], flush=True)
    return result


def headline(detector: Any) -> dict[str, float]:
    """What is told of a detector in one number."""
    return {'map50': detector['base_and_wrist']['detect.onnx']['map50']}


def classifier_accuracy(name: str, views: dict[str, list[Scene]]) -> Any:
    """Share of right labels on the true boxes, per set of pictures and graph."""
    bundle, found = graphs(name)
    config = read_config(bundle, ClassifierConfig)
    result: dict[str, Any] = {}
    for view, pictures in views.items():
        crops, wanted = [], []
        for scene in pictures:
            for box, label in boxes_with_state(scene, config.of_class):
                height, width = scene.image.shape[:2]
                corners = crop_corners(tuple(box.tolist()), width, height, config.margin)
                if corners is not None:
                    crop = stretch(scene.image, corners, config.image_size)
                    crops.append(network_input(crop, config))
                    wanted.append(label)
        rows = result[view] = {'crops': len(crops), 'share_of_label_1': float(np.mean(wanted))}
        for graph, run in found.items():
            right = [
                int(run(crop).argmax()) == label for crop, label in zip(crops, wanted, strict=True)
            ]
            rows[graph] = round(float(np.mean(right)), 4)
            print(name, view, graph, rows[graph], flush=True)
    return result


def main() -> int:
    """Draw, run, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--detector', default='sim-objects')
    parser.add_argument('--classifiers', default='sim-gripper,sim-opening', metavar='A,B')
    parser.add_argument('--weights', type=Path, metavar='FILE', help="the detector's, in PyTorch")
    parser.add_argument('--pictures', type=int, default=400, help='of each set')
    parser.add_argument('--json', type=Path, default=ROOT / 'benchmarks/perception-accuracy.json')
    parser.add_argument('--summary', type=Path, default=ROOT / 'benchmarks/perception.json')
    args = parser.parse_args()
    first = SEEDS['held-out']
    views = {
        'base_and_wrist': list(scenes(args.pictures, first, ('near', 'wrist'))),
        'every_view': list(scenes(args.pictures, first + 5000)),
    }
    record = {
        'command': 'python benchmarks/perception_accuracy.py --weights detector.pt',
        'first_seeds': {'base_and_wrist': first, 'every_view': first + 5000},
        'runtime': 'ONNX Runtime, CPU',
        args.detector: detector_accuracy(args.detector, args.weights, views),
    }
    for name in filter(None, args.classifiers.split(',')):
        record[name] = classifier_accuracy(name, views)
    args.json.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
    put(args.summary, headline(record[args.detector]))
    print(f'wrote {args.json}, {args.summary}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
