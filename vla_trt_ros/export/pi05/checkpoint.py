"""A published Pi0.5 checkpoint as a source of parameters, checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vla_trt_ros.errors import BundleError
from vla_trt_ros.export.pi05.layouts import (
    EMBEDDING,
    LEROBOT_PREFIX,
    TIED_HEAD,
    KeyLayout,
    key_layout,
    lora_names,
    our_name,
    published_name,
    unread_shapes,
)
from vla_trt_ros.export.pi05.parameters import skeleton
from vla_trt_ros.export.tensor_files import MERGE, TensorFiles, find_tensor_files
from vla_trt_ros.policies.pi05.spec import Pi05Config


class Progress(Protocol):
    """Like cli.progress.bar."""

    def __call__(self, items: Sequence[str], label: str) -> Iterator[str]:
        """``items``, shown as they are used."""


def _silent(items: Sequence[str], label: str) -> Iterator[str]:
    yield from items


class Checkpoint:
    """The tensors of a checkpoint under the names of `Pi05`; a ParameterSource."""

    def __init__(self, files: TensorFiles, config: Pi05Config) -> None:
        self.config = config
        self._files = files
        self._where = ', '.join(str(path) for path in files.paths)
        lora = lora_names(files.shapes)
        if lora:
            raise BundleError(
                f'{self._where} holds LoRA weights that are not merged, as {lora[0]!r}; {MERGE}'
            )
        self.layout: KeyLayout = key_layout(files.shapes, self._where)
        self._names = self._matched()

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return self._files.bytes

    def load(self, name: str) -> Tensor:
        """Parameter ``name`` as it is stored, a view of the mapped file."""
        return self._files.load(self._names[name])

    def check_finite(self, progress: Progress = _silent) -> None:
        """Read every weight once; BundleError names all that hold NaN or Inf."""
        bad = []
        for name in progress(list(self._names), 'checking weights'):
            tensor = self.load(name)
            count = 0
            for part in _parts(tensor):
                # The extremes are a hundred times faster than a mask, and NaN passes through.
                if not all(torch.isfinite(end) for end in torch.aminmax(part)):
                    count += int((~torch.isfinite(part)).sum())
            if count:
                bad.append(f'{self._names[name]}: {count} of {tensor.numel()}')
        if bad:
            raise BundleError(
                f'{self._where} holds NaN or Inf: its training or its copy went wrong; take an '
                f'earlier checkpoint.{_listed(bad)}'
            )

    def _matched(self) -> dict[str, str]:
        """Our names to the file's; BundleError lists everything that does not fit."""
        config, shapes = self.config, self._files.shapes
        wanted = {
            name: tuple(p.shape) for name, p in skeleton(config, torch.float32).named_parameters()
        }
        unread = unread_shapes(config)
        found: dict[str, str] = {}
        wrong: list[str] = []
        for published, shape in shapes.items():
            bare = published.removeprefix(LEROBOT_PREFIX)
            ours = EMBEDDING if bare == TIED_HEAD else our_name(published)
            if ours is not None and ours in wanted:
                if shape != wanted[ours]:
                    wrong.append(f'shape: {published} is {list(shape)}, not {list(wanted[ours])}')
                # The head and the embedding are one tensor; the embedding's own name leads.
                if ours not in found or bare != TIED_HEAD:
                    found[ours] = published
            elif bare in unread:
                if shape != unread[bare]:
                    wrong.append(f'shape: {published} is {list(shape)}, not {list(unread[bare])}')
            else:
                wrong.append(f'extra: {published} {list(shape)}')
        wrong += [
            f'missing: {published_name(name, self.layout)} {list(wanted[name])}'
            for name in wanted
            if name not in found
        ]
        if wrong:
            raise BundleError(
                f'{self._where} does not fit a Pi0.5 network of this size '
                f'({len(wrong)} tensors); check --size, or name the checkpoint that was meant.'
                f'{_listed(sorted(wrong))}'
            )
        return found


def open_checkpoint(folder: Path, config: Pi05Config) -> Checkpoint:
    """The checkpoint in ``folder``; BundleError for whatever is wrong with it but NaN."""
    return Checkpoint(find_tensor_files(folder), config)


def _parts(tensor: Tensor) -> Iterable[Tensor]:
    """Pieces of at most 64 Mi entries: a mask of the whole embedding would be half a GB."""
    return tensor.reshape(-1).split(1 << 26)


def _listed(lines: list[str]) -> str:
    return ''.join(f'\n  {line}' for line in lines)
