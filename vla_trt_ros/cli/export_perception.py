"""`vla-trt export --detector` and `--classifier`: options, and what is made of them."""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vla_trt_ros.config import Precision
from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.perception.spec import ClassifierConfig, DetectorConfig

if TYPE_CHECKING:
    from vla_trt_ros.export.perception.graph import NetworkFile

_YOLO = ('.pt', '.yaml')


def add_arguments(
    parser: argparse.ArgumentParser, kinds: argparse._MutuallyExclusiveGroup
) -> None:
    """The options that are theirs alone; ``kinds`` are the ways to name what is exported."""
    kinds.add_argument(
        '--detector',
        metavar='FILE',
        help='.onnx, or .pt or .yaml of ultralytics (AGPL-3.0): yolo11s.pt, yolo26n.pt',
    )
    kinds.add_argument(
        '--classifier',
        metavar='FILE',
        help='the same of a classifier: an .onnx from torch, timm or transformers, yolo11n-cls.pt',
    )
    group = parser.add_argument_group('detectors and classifiers')
    group.add_argument(
        '--labels', metavar='A,B', help='in the order of the outputs (default: those in the file)'
    )
    group.add_argument(
        '--image-size', type=int, metavar='N', help='side in pixels, for .pt and .yaml (640; 224)'
    )
    group.add_argument(
        '--of', default='', metavar='A,B', help="classifier: detector's labels that it looks at"
    )
    group.add_argument(
        '--mean', metavar='R,G,B', help='classifier: taken off colours 0 to 1 (default: 0,0,0)'
    )
    group.add_argument(
        '--std', metavar='R,G,B', help='classifier: and what they are divided by (default: 1,1,1)'
    )
    group.add_argument(
        '--margin', type=float, default=0.0, help='classifier: share of a box shown around it'
    )
    group.add_argument('--score', type=float, default=0.25, help='detector: least score of a box')
    group.add_argument(
        '--overlap', type=float, default=0.7, help='detector: IoU above which the lesser box goes'
    )


def run(args: argparse.Namespace) -> int:
    """Export, and say how far each precision is from float32."""
    if find_spec('onnx') is None:
        raise ConfigError("export needs onnx, which is not installed: pip install '.[export]'.")
    from vla_trt_ros.export.perception.job import PerceptionJob, export
    from vla_trt_ros.export.perception.pictures import network_input

    words = (args.precision or 'fp32').split(',')
    precisions = [cast(Precision, word) for word in words]  # job.py checks them
    network = _network(args)
    config = _config(args, network)
    images = [network_input(picture, config) for picture in _pictures(args, words)]
    job = PerceptionJob(
        args.out,
        network.model,
        config,
        precisions,
        images,
        _notes(args),
        args.card,
        half=args.store == 'fp16',
    )
    results = export(job, lambda name: print(f'  {name}', flush=True))
    for result in results:
        print(result.line())
    size = sum(p.stat().st_size for p in args.out.iterdir() if p.is_file())
    kind, count = _kind(args), len(config.labels)
    print(f'{args.out}{os.sep}: {kind} of {count} labels, {size / 1e6:.1f} MB')
    return 0


def _kind(args: argparse.Namespace) -> str:
    return 'detector' if args.detector else 'classifier'


def _source(args: argparse.Namespace) -> Path:
    return Path(args.detector or args.classifier)


def _network(args: argparse.Namespace) -> NetworkFile:
    from vla_trt_ros.export.perception.graph import read_model, read_network

    source, kind = _source(args), _kind(args)
    if source.suffix in _YOLO:
        from vla_trt_ros.export.perception.yolo import yolo_to_onnx

        side = args.image_size or (640 if kind == 'detector' else 224)
        return read_model(yolo_to_onnx(str(source), kind, side), str(source))
    if source.suffix != '.onnx':
        raise ConfigError(f'{source} is none of {", ".join((*_YOLO, ".onnx"))}.')
    network = read_network(source)
    if args.image_size not in (None, network.side):
        raise ConfigError(
            f'--image-size {args.image_size}: {source} reads {network.side}, and an .onnx cannot '
            'be changed; leave the option out, or export it anew.'
        )
    return network


def _config(args: argparse.Namespace, network: NetworkFile) -> DetectorConfig | ClassifierConfig:
    from vla_trt_ros.export.perception.graph import head_of
    from vla_trt_ros.export.perception.job import with_output_kind
    from vla_trt_ros.export.perception.parity import runner
    from vla_trt_ros.export.perception.pictures import network_input, random_pictures

    labels = _words(args.labels or '') or network.labels
    if not labels:
        raise ConfigError(
            f'{_source(args)} does not say its labels; give --labels in their order.'
        )
    if args.detector:
        head = head_of(network.output, len(labels))
        return DetectorConfig(network.side, labels, head, args.score, args.overlap)
    config = ClassifierConfig(
        network.side,
        labels,
        of_class=_words(args.of),
        mean=_numbers('--mean', args.mean or '0,0,0'),
        std=_numbers('--std', args.std or '1,1,1'),
        margin=args.margin,
    )
    noise = network_input(random_pictures(1)[0], config)
    return with_output_kind(config, runner(network.model)(noise))


def _pictures(args: argparse.Namespace, precisions: list[str]) -> list[Uint8Array]:
    from vla_trt_ros.export.perception.pictures import random_pictures, read_folder

    if args.calibrate:
        return read_folder(args.calibrate, args.frames)
    if _source(args).suffix == '.yaml' or not {'int8', 'fp8'}.intersection(precisions):
        return random_pictures(8)
    raise ConfigError(
        f'--precision {args.precision} needs pictures of what the robot sees: give --calibrate '
        'FOLDER.'
    )


def _notes(args: argparse.Namespace) -> dict[str, str]:
    source = _source(args)
    random = 'random, ' if source.suffix == '.yaml' else ''
    notes = {'weights': f'{random}{source.name}'}
    if source.suffix in _YOLO:
        notes['licence'] = 'AGPL-3.0 (ultralytics)'
    if args.licence:
        notes['licence'] = args.licence
    return notes


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(',') if word.strip())


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(','))
    except ValueError:
        raise ConfigError(f'{option} {text!r}: write numbers such as 0.5,0.5,0.5.') from None
