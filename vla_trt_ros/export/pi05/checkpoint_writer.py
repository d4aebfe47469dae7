"""Writes a network as openpi or LeRobot would: checkpoints to test the reader with, at any size.

Tensors go to the file one at a time; nothing is copied in memory as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vla_trt_ros.export.pi05.layouts import (
    EMBEDDING,
    LEROBOT_PREFIX,
    TIED_HEAD,
    KeyLayout,
    published_name,
    unread_shapes,
)
from vla_trt_ros.export.pi05.model import Pi05
from vla_trt_ros.export.tensor_files import WEIGHTS
from vla_trt_ros.export.weightless import as_bytes

_NAMES = {torch.float32: 'F32', torch.bfloat16: 'BF16', torch.float16: 'F16'}
_NOT_WRITTEN = 'gemma_expert.model.embed_tokens'


def checkpoint_tensors(model: Pi05, layout: KeyLayout) -> dict[str, Callable[[], Tensor]]:
    """All tensors that the reference implementation of ``layout`` keeps, by its names.

    Those that no action depends on are there, too, filled with 0.5. Of embedding and head, which
    are one, openpi's writer keeps the head and LeRobot's both.
    """
    prefix = LEROBOT_PREFIX if layout == 'lerobot' else ''
    found: dict[str, Callable[[], Tensor]] = {
        published_name(name, layout): p.detach for name, p in model.named_parameters()
    }
    embedding = published_name(EMBEDDING, layout)
    found[prefix + TIED_HEAD] = found[embedding]
    if layout == 'openpi':
        del found[embedding]
    dtype = model.language_model.embed_tokens.weight.dtype
    for name, shape in unread_shapes(model.config).items():
        if _NOT_WRITTEN not in name:
            found[prefix + name] = lambda shape=shape: torch.full(shape, 0.5, dtype=dtype)  # type: ignore[misc]
    return found


def write_tensors(path: Path, tensors: dict[str, Callable[[], Tensor]]) -> None:
    """A safetensors file of ``tensors``."""
    header: dict[str, object] = {'__metadata__': {'format': 'pt'}}
    end = 0
    for name, make in tensors.items():
        tensor = make()
        begin, end = end, end + tensor.nbytes
        header[name] = {
            'dtype': _NAMES[tensor.dtype],
            'shape': list(tensor.shape),
            'data_offsets': [begin, end],
        }
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with path.open('wb') as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        for make in tensors.values():
            file.write(as_bytes(make().contiguous()))


def write_weights(folder: Path, model: Pi05, layout: KeyLayout) -> Path:
    """model.safetensors of ``model`` in ``folder``, which is made; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, checkpoint_tensors(model, layout))
    return folder
