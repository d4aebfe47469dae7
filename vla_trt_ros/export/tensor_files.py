"""Safetensors files of a checkpoint, read one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from vla_trt_ros.errors import BundleError

WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'

_REOPEN_AFTER = 256 << 20
"""Bytes. Pages of a mapped file count as memory until it is closed."""


class TensorFiles:
    """Every tensor of one or more safetensors files, by name.

    BundleError if a file is missing, truncated or of another kind, or a name is in two files.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._where: dict[str, Path] = {}
        for path in paths:
            handle = _open(path)
            for name in handle.keys():  # noqa: SIM118  a handle is no mapping
                if name in self._where:
                    raise BundleError(
                        f'{path}: {name!r} is also in {self._where[name].name}; remove one file.'
                    )
                self._where[name] = path
                self.shapes[name] = tuple(handle.get_slice(name).get_shape())
        self._handles: dict[Path, Any] = {}
        self._read = 0

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self.paths)

    def load(self, name: str) -> Tensor:
        """The tensor ``name`` as it is stored: a view of the mapped file, so do not write to it.

        The file stays mapped while the tensor lives.
        """
        path = self._where[name]
        if self._read > _REOPEN_AFTER:
            self._handles.clear()
            self._read = 0
        if path not in self._handles:
            self._handles[path] = _open(path)
        tensor: Tensor = self._handles[path].get_tensor(name)
        self._read += tensor.nbytes
        return tensor


def find_tensor_files(folder: Path) -> TensorFiles:
    """model.safetensors in ``folder``, or the files that its index names.

    BundleError names what the folder holds instead: an Orbax checkpoint, an unmerged LoRA
    adapter, or nothing known.
    """
    if not folder.is_dir():
        raise BundleError(f'{folder} is no folder; give the folder that holds {WEIGHTS}.')
    if (folder / WEIGHTS).is_file():
        return TensorFiles([folder / WEIGHTS])
    if (folder / INDEX).is_file():
        return TensorFiles(list(_indexed(folder / INDEX)))
    if any((folder / name).exists() for name in _ORBAX):
        raise BundleError(
            f'{folder} is a JAX (Orbax) checkpoint. Convert it first, with openpi: python '
            f'examples/convert_jax_model_to_pytorch.py --checkpoint_dir {folder} --config_name '
            'CONFIG --output_path DIR; then export DIR.'
        )
    if (folder / 'adapter_model.safetensors').is_file():
        raise BundleError(f'{folder} holds a LoRA adapter alone; {MERGE}')
    raise BundleError(f'{folder} holds no {WEIGHTS}; give the folder of a Pi0.5 checkpoint.')


MERGE = (
    "merge it into the weights first (peft's merge_and_unload(), then save the model) and export "
    'the merged checkpoint.'
)

_ORBAX = (
    'params/_METADATA',
    'params/manifest.ocdbt',
    'params/ocdbt.process_0',
    '_METADATA',
    '_CHECKPOINT_METADATA',
    'manifest.ocdbt',
)


def _indexed(index: Path) -> Iterator[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding='utf-8'))['weight_map'].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BundleError(f'{index} cannot be read ({error}); copy it again.') from error
    for name in names:
        if Path(name).name != name:
            raise BundleError(f'{index} names {name!r}, which lies outside the folder.')
        yield index.parent / name


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework='pt')
    except SafetensorError as error:
        raise BundleError(
            f'{path} is truncated or no safetensors file ({error}); copy it again.'
        ) from error
    except OSError as error:
        raise BundleError(f'{path} cannot be read ({error}); copy it again.') from error
