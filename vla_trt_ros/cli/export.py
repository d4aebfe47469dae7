"""Make a bundle: export a Pi0.5 network stage by stage to ONNX and pack it with its vocabulary,
statistics and robot layout; or a detector or classifier with its labels.

The weights come from a checkpoint of openpi (PyTorch) or LeRobot, of training/train_nano.py, or
from a seed. Needs the workshop's packages (pip install '.[export]'); the bundle runs without them.

  vla-trt export --checkpoint pi05_franka --robot franka --horizon 15 --out bundles/franka
  vla-trt export --random-weights 0 --out bundles/nano
  vla-trt export --detector yolo26n.pt --precision int8 --calibrate pictures --out bundles/yolo
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from vla_trt_ros.cli import export_perception
from vla_trt_ros.cli.progress import bar
from vla_trt_ros.cli.words import step_counts
from vla_trt_ros.config import Precision, load_robot
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.policies.pi05.spec import NANO, PI05

SIZES = {'nano': NANO, 'pi05': PI05}
_FLOAT = ('fp32', 'bf16')  # exported from the weights; the others are made from these
_CALIBRATED = ('fp8', 'int8', 'nvfp4')  # as in export/precision.py, which a robot may lack
DEFAULT_PRECISION: dict[str, Precision] = {'nano': 'fp32', 'pi05': 'bf16'}

_STATES = ('none', 'real', 'padded')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which network, which robot, and where to."""
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument(
        '--checkpoint',
        type=Path,
        metavar='DIR',
        help='folder with model.safetensors, of openpi (PyTorch) or LeRobot',
    )
    weights.add_argument(
        '--random-weights',
        type=int,
        metavar='SEED',
        help='no checkpoint: weights drawn from this seed',
    )
    export_perception.add_arguments(parser, weights)
    parser.add_argument(
        '--out', type=Path, required=True, metavar='BUNDLE', help='folder; a bundle is replaced'
    )
    parser.add_argument(
        '--robot', default='metaworld', help='robot file: a name or a path (default: metaworld)'
    )
    parser.add_argument(
        '--size',
        choices=SIZES,
        help='size (default: pi05 of a checkpoint, nano of a seed); a checkpoint that names its '
        'own sizes is taken at its word',
    )
    parser.add_argument(
        '--precision',
        metavar='LIST',
        help=f'of {", ".join(get_args(Precision))} (default: fp32 for nano, bf16 for pi05)',
    )
    parser.add_argument(
        '--calibrate',
        type=Path,
        metavar='FRAMES',
        help='folder with frames.json, LeRobot data set or rosbag: scales of fp8, int8, nvfp4',
    )
    parser.add_argument(
        '--frames', type=int, default=64, metavar='N', help='frames taken of it (default: 64)'
    )
    parser.add_argument(
        '--store',
        choices=('fp32', 'fp16'),
        default='fp32',
        help='how float32 weights lie on disk; fp16: rounded once, before any graph is made, in '
        'half the bytes, and computed with in float32 (default: fp32)',
    )
    parser.add_argument(
        '--cpu-only',
        action='store_true',
        help='int8 for ONNX Runtime on a CPU alone, which needs no frames, without the second '
        'set that vla-trt build takes for GPUs',
    )
    parser.add_argument('--steps', default='', metavar='LIST', help='Euler steps, as 1,3,10')
    parser.add_argument(
        '--buckets', default='', metavar='LIST', help='prompt lengths in tokens, as 16,48,112,200'
    )
    parser.add_argument(
        '--horizon', type=int, metavar='N', help='rows of a chunk, where the checkpoint is silent'
    )
    parser.add_argument(
        '--views', metavar='LIST', help="cameras in the network's order (default: the robot's)"
    )
    parser.add_argument(
        '--state',
        choices=_STATES,
        help='state in the prompt: none (openpi LIBERO), real (openpi), padded (LeRobot)',
    )
    parser.add_argument(
        '--actions',
        choices=('absolute', 'delta'),
        help='joint columns (default: delta for openpi, absolute for LeRobot)',
    )
    parser.add_argument('--stats', type=Path, metavar='FILE', help='normalisation statistics')
    parser.add_argument('--tokenizer', type=Path, metavar='FILE', help='SentencePiece vocabulary')
    parser.add_argument(
        '--card', type=Path, metavar='FILE', help='model card, Markdown (default: what is known)'
    )
    parser.add_argument('--licence', metavar='NAME', help='of the weights, as Apache-2.0')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write times and sizes there')


def run(args: argparse.Namespace) -> int:
    """Export, and say what was written."""
    if args.detector or args.classifier:
        return export_perception.run(args)
    size = args.size or _size_of(args.checkpoint)
    exported, quantized = _precisions(args, size)
    packages = ['torch', 'onnx', 'onnxscript', *(['safetensors'] if args.checkpoint else [])]
    for package in packages:
        if find_spec(package) is None:
            raise ConfigError(
                f"export needs {package}, which is not installed: pip install '.[export]'."
            )
    import torch

    from vla_trt_ros.export.pi05.card import command_line, model_card
    from vla_trt_ros.export.pi05.job import ExportJob, export, prepare
    from vla_trt_ros.export.pi05.to_bundle import engine_count

    torch.set_num_threads(1)
    begin = time.monotonic()
    job = ExportJob(
        out=args.out,
        size=size,
        base=SIZES[size],
        robot=load_robot(args.robot),
        precisions=exported,
        checkpoint=args.checkpoint,
        seed=args.random_weights or 0,
        views=tuple(args.views.split(',')) if args.views else None,
        horizon=args.horizon,
        num_steps=tuple(step_counts(args.steps)) or None,
        buckets=tuple(_numbers('--buckets', args.buckets)) or None,
        prompt_state=args.state,
        actions=args.actions,
        stats=args.stats,
        tokenizer=args.tokenizer,
        half=args.store == 'fp16',
        card=args.card,
        licence=args.licence,
    )
    prepared = prepare(job, bar)
    log = _Log(begin, len(exported) * engine_count(prepared.config))
    source = f'checkpoint {job.checkpoint.resolve().name}' if job.checkpoint else None
    notes = {
        'weights': source or f'random, seed {job.seed}',
        'exporter': f'torch {torch.__version__}',
    }
    if job.half:
        notes['weights_rounded_to'] = 'float16'
    if args.licence or source is None:
        notes['licence'] = args.licence or 'Apache-2.0'
    export(prepared, model_card(prepared), notes, log)
    if quantized:
        _quantize(args, quantized)
    files = {p.name: p.stat().st_size for p in sorted(args.out.iterdir()) if p.is_file()}
    total = time.monotonic() - begin
    if args.json:
        record = log.record(total, files, f'torch {torch.__version__}', command_line(prepared))
        args.json.write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
    count = sum(name.endswith('.onnx') for name in files)
    print(
        f'{args.out}: {count} graphs, {sum(files.values()) / 1e6:.1f} MB, {total:.0f} s, '
        f'at most {_peak_gb():.1f} GB of memory'
    )
    return 0


def _size_of(checkpoint: Path | None) -> str:
    """The default of --size: what a checkpoint without sizes of its own can only be."""
    if checkpoint is None:
        return 'nano'
    from vla_trt_ros.export.pi05.metadata import read_metadata

    return 'nano' if read_metadata(checkpoint).network else 'pi05'


class _Log:
    """Says which graph is being made, and remembers how long each took."""

    def __init__(self, begin: float, count: int) -> None:
        self._begin, self._count = begin, count
        self._starts: list[tuple[str, float]] = []

    def __call__(self, graph: str) -> None:
        elapsed = time.monotonic() - self._begin
        self._starts.append((graph, elapsed))
        done = f'[{len(self._starts):2}/{self._count}]'
        line = f'{done} {elapsed:5.1f} s {_peak_gb():5.1f} GB  {graph}'
        print(line, file=sys.stderr, flush=True)

    def record(
        self, total: float, files: dict[str, int], torch: str, command: str
    ) -> dict[str, Any]:
        """What a benchmark file holds."""
        ends = [at for _, at in self._starts[1:]] + [total]
        return {
            'command': command,
            'clock': 'wall, from the start of the verb; the last graph includes hashing all files',
            'hardware': cpu_name(),
            'software': torch,
            'total_s': round(total, 1),
            'before_first_graph_s': round(self._starts[0][1], 1),
            'peak_memory_gb': round(_peak_gb(), 2),
            'graph_s': {
                name: round(end - at, 1)
                for (name, at), end in zip(self._starts, ends, strict=True)
            },
            'file_bytes': files,
        }


def _precisions(
    args: argparse.Namespace, size: str
) -> tuple[tuple[Precision, ...], tuple[Precision, ...]]:
    """What is exported from the weights, and what is made from that."""
    words = (args.precision or DEFAULT_PRECISION[size]).split(',')
    for word in words:
        if word not in get_args(Precision):
            known = ', '.join(get_args(Precision))
            raise ConfigError(f'--precision {word!r} is none of {known}.')
    exported = tuple(p for p in get_args(Precision) if p in words and p in _FLOAT)
    quantized = tuple(p for p in get_args(Precision) if p in words and p not in _FLOAT)
    calibrated = [p for p in quantized if p in _CALIBRATED and not args.cpu_only]
    if calibrated and args.checkpoint and not args.calibrate:
        raise ConfigError(
            f'--precision {",".join(calibrated)} needs frames of the robot: give --calibrate.'
        )
    if args.calibrate and not args.calibrate.exists():
        raise ConfigError(f'--calibrate {args.calibrate} does not exist; name a folder or a bag.')
    for word in quantized if args.cpu_only else ():
        if word != 'int8':
            raise ConfigError(
                f'--cpu-only: {word} is for GPUs alone; leave one of the two words out.'
            )
    if (calibrated or args.cpu_only) and 'fp32' not in exported:
        exported = ('fp32', *exported)  # what the frames run through
    return exported or (DEFAULT_PRECISION[size],), quantized


def _quantize(args: argparse.Namespace, precisions: tuple[Precision, ...]) -> None:
    """Add ``precisions`` to the bundle that was just written."""
    from vla_trt_ros.bundle import open_bundle
    from vla_trt_ros.export.frames import Frames, read_frames, synthetic_frames
    from vla_trt_ros.export.precision import precision_row
    from vla_trt_ros.export.quantize.add import add_precisions
    from vla_trt_ros.sim.prompts import PROMPTS

    def say(text: str) -> None:
        print(f'  {text}', file=sys.stderr, flush=True)

    frames: Frames | None = None
    if not args.cpu_only and any(p in _CALIBRATED for p in precisions):
        bundle = open_bundle(args.out)
        if args.calibrate:
            robot = load_robot(args.robot)
            frames = read_frames(args.calibrate, bundle, args.frames, robot=robot)
        else:
            say('random weights: calibrated on made-up frames')
            prompts = [texts[0] for texts in PROMPTS.values()]
            frames = synthetic_frames(bundle, args.frames, prompts)
    for stages in dict.fromkeys(precision_row(p).stages for p in precisions):
        same = [p for p in precisions if precision_row(p).stages == stages]
        add_precisions(
            args.out,
            same,
            frames,
            stages=stages,
            gpu=not args.cpu_only,
            half=args.store == 'fp16',
            report=say,
        )


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(',') if word]
    except ValueError:
        raise ConfigError(f'{option} {text!r}: write numbers such as 16,48,112.') from None


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
