"""Make a bundle: export a Pi0.5 network stage by stage to ONNX, or to the weights of hand-tuned
GPU stages, and pack it with its vocabulary, statistics and robot layout; or a detector or
classifier with its labels.

The weights come from a checkpoint of openpi (PyTorch) or LeRobot, of training/train_nano.py, or
from a seed. Needs the workshop's packages (pip install '.[export]'); the bundle runs without them.

  vla-trt export --checkpoint pi05_franka --robot franka --horizon 15 --out bundles/franka
  vla-trt export --random-weights 0 --out bundles/nano
  vla-trt export --random-weights 0 --size pi05 --backend cuda_graph --out bundles/pi05-random
  vla-trt export --detector yolo26n.pt --precision int8 --calibrate pictures --out bundles/yolo
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from vla_trt_ros.cli import export_perception
from vla_trt_ros.cli.export_log import ExportLog, peak_gb
from vla_trt_ros.cli.export_words import CALIBRATED, parse_backends, sort_precisions
from vla_trt_ros.cli.progress import bar
from vla_trt_ros.cli.words import step_counts
from vla_trt_ros.config import Precision, load_robot
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.policies.pi05.spec import NANO, PI05

if TYPE_CHECKING:
    from vla_trt_ros.export.frames import Frames

SIZES = {'nano': NANO, 'pi05': PI05}
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
        '--backend',
        default='onnxruntime',
        metavar='LIST',
        help='onnxruntime: ONNX graphs, which tensorrt engines are built of, too; cuda_graph: one '
        'file of weights for hand-tuned GPU stages, in fp32, bf16 or fp8 (default: onnxruntime)',
    )
    parser.add_argument(
        '--device',
        choices=('cpu', 'cuda'),
        default='cpu',
        help='where random weights are drawn and cuda_graph is prepared (default: cpu)',
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
    backends = parse_backends(args.backend)
    exported, quantized, fast = sort_precisions(args, size, backends)
    packages = ['torch', *(['safetensors'] if args.checkpoint else [])]
    if 'onnxruntime' in backends:
        packages += ['onnx', 'onnxscript']
    for package in packages:
        if find_spec(package) is None:
            raise ConfigError(
                f"export needs {package}, which is not installed: pip install '.[export]'."
            )
    import torch

    from vla_trt_ros.export.pi05.card import command_line, model_card
    from vla_trt_ros.export.pi05.job import ExportJob, export, prepare
    from vla_trt_ros.export.pi05.to_bundle import engine_count

    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ConfigError(
            f'--device cuda: torch {torch.__version__} finds no NVIDIA GPU; leave it out.'
        )
    torch.set_num_threads(1)
    begin = time.monotonic()
    job = ExportJob(
        out=args.out,
        size=size,
        base=SIZES[size],
        robot=load_robot(args.robot),
        precisions=exported,
        fast=fast,
        device=args.device,
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
    log = ExportLog(begin, len(exported) * engine_count(prepared.config))
    source = f'checkpoint {job.checkpoint.resolve().name}' if job.checkpoint else None
    notes = {
        'weights': source or f'random, seed {job.seed}',
        'exporter': f'torch {torch.__version__}',
    }
    if job.half:
        notes['weights_rounded_to'] = 'float16'
    if args.licence or source is None:
        notes['licence'] = args.licence or 'Apache-2.0'
    weights = export(prepared, model_card(prepared), notes, log)
    if quantized:
        _quantize(args, quantized)
    if fast:
        from vla_trt_ros.export.pi05.fast import add_fast

        frames = _frames(args) if 'fp8' in fast else None
        add_fast(args.out, weights, fast, frames, device=args.device, progress=bar)
    files = {p.name: p.stat().st_size for p in sorted(args.out.iterdir()) if p.is_file()}
    total = time.monotonic() - begin
    if args.json:
        record = log.record(total, files, f'torch {torch.__version__}', command_line(prepared))
        args.json.write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
    count = sum(name.endswith('.onnx') for name in files)
    made = [f'{count} graphs'] * bool(count) + [f'cuda_graph {", ".join(fast)}'] * bool(fast)
    print(
        f'{args.out}: {", ".join(made)}, {sum(files.values()) / 1e6:.1f} MB, {total:.0f} s, '
        f'at most {peak_gb():.1f} GB of memory'
    )
    return 0


def _size_of(checkpoint: Path | None) -> str:
    """The default of --size: what a checkpoint without sizes of its own can only be."""
    if checkpoint is None:
        return 'nano'
    from vla_trt_ros.export.pi05.metadata import read_metadata

    return 'nano' if read_metadata(checkpoint).network else 'pi05'


def _quantize(args: argparse.Namespace, precisions: tuple[Precision, ...]) -> None:
    """Add ``precisions`` to the bundle that was just written."""
    from vla_trt_ros.export.precision import precision_row
    from vla_trt_ros.export.quantize.add import add_precisions

    calibrated = not args.cpu_only and any(p in CALIBRATED for p in precisions)
    frames = _frames(args) if calibrated else None
    for stages in dict.fromkeys(precision_row(p).stages for p in precisions):
        same = [p for p in precisions if precision_row(p).stages == stages]
        add_precisions(
            args.out,
            same,
            frames,
            stages=stages,
            gpu=not args.cpu_only,
            half=args.store == 'fp16',
            report=_say,
        )


def _frames(args: argparse.Namespace) -> Frames:
    """Frames to calibrate with, or made-up ones for random weights."""
    from vla_trt_ros.bundle import open_bundle
    from vla_trt_ros.export.frames import read_frames, synthetic_frames
    from vla_trt_ros.sim.prompts import PROMPTS

    bundle = open_bundle(args.out)
    if args.calibrate:
        return read_frames(args.calibrate, bundle, args.frames, robot=load_robot(args.robot))
    _say('random weights: calibrated on made-up frames')
    return synthetic_frames(bundle, args.frames, [texts[0] for texts in PROMPTS.values()])


def _say(text: str) -> None:
    print(f'  {text}', file=sys.stderr, flush=True)


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(',') if word]
    except ValueError:
        raise ConfigError(f'{option} {text!r}: write numbers such as 16,48,112.') from None
