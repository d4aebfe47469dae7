"""The folder that a training of one's own leaves, and `vla-trt export --checkpoint` reads.

It holds model.safetensors (float32, openpi's names), config.json with all sizes of the network,
assets/<robot>/norm_stats.json (openpi's layout) and the vocabulary, tokenizer.model.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vla_trt_ros.errors import BundleError
from vla_trt_ros.export.pi05.checkpoint_writer import write_tensors
from vla_trt_ros.export.pi05.layouts import published_name
from vla_trt_ros.export.pi05.parameters import skeleton
from vla_trt_ros.export.tensor_files import WEIGHTS
from vla_trt_ros.policies.pi05.spec import Pi05Config
from vla_trt_ros.preprocess.normalize import NormStats, save_norm_stats


def write_checkpoint(
    folder: Path,
    config: Pi05Config,
    weights: Mapping[str, Tensor],
    *,
    robot: str,
    norm_stats: dict[str, NormStats],
    vocabulary: bytes,
) -> Path:
    """Write a network of sizes ``config`` to ``folder``, which is made; returns ``folder``.

    ``weights`` has the names and shapes of ``Pi05(config).state_dict()``, in any float dtype, on
    any device; they are written as float32. ``norm_stats`` has 'state' and 'actions' of
    ``robot``, normalised by quantiles; ``vocabulary`` are the bytes of a SentencePiece .model
    file. BundleError lists weights that are missing, too many, of another shape or not finite;
    nothing is written then. The weights come last, so a folder that holds them is whole.
    """
    _check(config, weights)
    assets = folder / 'assets' / robot
    assets.mkdir(parents=True, exist_ok=True)
    save_norm_stats(assets / 'norm_stats.json', norm_stats)
    (folder / 'tokenizer.model').write_bytes(vocabulary)
    text = {
        'action_dim': config.action_dim,
        'action_horizon': config.horizon,
        'precision': 'float32',
        'network': dataclasses.asdict(config),
    }
    (folder / 'config.json').write_text(json.dumps(text, indent=1) + '\n', encoding='utf-8')
    aside = folder / f'{WEIGHTS}.part'

    def single(tensor: Tensor) -> Tensor:
        return tensor.detach().to('cpu', torch.float32).contiguous()

    write_tensors(
        aside,
        {
            published_name(name, 'openpi'): lambda tensor=tensor: single(tensor)  # type: ignore[misc]
            for name, tensor in weights.items()
        },
    )
    os.replace(aside, folder / WEIGHTS)
    return folder


def _check(config: Pi05Config, weights: Mapping[str, Tensor]) -> None:
    wanted = {n: list(p.shape) for n, p in skeleton(config, torch.float32).named_parameters()}
    wrong = [f'missing: {name} {shape}' for name, shape in wanted.items() if name not in weights]
    for name, tensor in weights.items():
        if name not in wanted:
            wrong.append(f'extra: {name} {list(tensor.shape)}')
        elif list(tensor.shape) != wanted[name]:
            wrong.append(f'shape: {name} is {list(tensor.shape)}, not {wanted[name]}')
        elif not bool(torch.isfinite(tensor).all()):
            wrong.append(f'not finite: {name}')
    if wrong:
        listed = ''.join(f'\n  {line}' for line in wrong)
        raise BundleError(
            f'{len(wrong)} weights do not fit the network; give those of Pi05(config), and take '
            f'the step before they turned to NaN or Inf.{listed}'
        )
