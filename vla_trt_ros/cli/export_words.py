"""What the words of --backend and --precision of `vla-trt export` mean together."""

from __future__ import annotations

import argparse
from typing import get_args

from vla_trt_ros.config import Precision
from vla_trt_ros.errors import ConfigError

_FLOAT = ('fp32', 'bf16')  # exported from the weights; the others are made from these
_FAST = ('fp32', 'bf16', 'fp8')  # what cuda_graph computes
CALIBRATED = ('fp8', 'int8', 'nvfp4')  # as in export/precision.py, which a robot may lack
DEFAULT_PRECISION: dict[str, Precision] = {'nano': 'fp32', 'pi05': 'bf16'}


def parse_backends(text: str) -> tuple[str, ...]:
    """What --backend lists; ConfigError for a word that is none of them."""
    words = tuple(dict.fromkeys(text.split(',')))
    for word in words:
        if word not in ('onnxruntime', 'cuda_graph'):
            raise ConfigError(
                f'--backend {word!r} is none of onnxruntime, cuda_graph; engines of tensorrt are '
                'built of the ONNX graphs: vla-trt build.'
            )
    return words


def sort_precisions(
    args: argparse.Namespace, size: str, backends: tuple[str, ...]
) -> tuple[tuple[Precision, ...], ...]:
    """What is exported to ONNX from the weights, what is made from that, and what is made for
    cuda_graph. ConfigError for words that do not go together.
    """
    words = (args.precision or DEFAULT_PRECISION[size]).split(',')
    for word in words:
        if word not in get_args(Precision):
            known = ', '.join(get_args(Precision))
            raise ConfigError(f'--precision {word!r} is none of {known}.')
    listed = tuple(p for p in get_args(Precision) if p in words)
    fast = tuple(p for p in listed if p in _FAST) if 'cuda_graph' in backends else ()
    if 'onnxruntime' not in backends and len(fast) < len(listed):
        raise ConfigError(
            f'--precision {args.precision}: cuda_graph computes {", ".join(_FAST)} alone.'
        )
    graphs = listed if 'onnxruntime' in backends else ()
    exported = tuple(p for p in graphs if p in _FLOAT)
    quantized = tuple(p for p in graphs if p not in _FLOAT)
    calibrated = [p for p in listed if p in CALIBRATED and not args.cpu_only]
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
    if graphs:
        if (calibrated or args.cpu_only) and 'fp32' not in exported:
            exported = ('fp32', *exported)  # what the frames run through
        exported = exported or (DEFAULT_PRECISION[size],)
    return exported, quantized, fast
