"""Tensors in a safetensors file, written and read one at a time.

The format is safetensors', so that other programs read it; its header stands in front and is
known only at the end, so the writer keeps room for it.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla_trt_ros.errors import BackendError

_ROOM = 512 << 10
"""Bytes kept for the header; a Pi0.5 network's takes about 150 kB."""
_DTYPES = {
    'F32': torch.float32,
    'BF16': torch.bfloat16,
    'F8_E4M3': torch.float8_e4m3fn,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write_tensors(
    path: Path, metadata: Mapping[str, str], tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """Write ``tensors`` (float32, bfloat16, FP8; any device) to ``path`` as they come."""
    header: dict[str, Any] = {'__metadata__': dict(metadata)}
    end = 0
    with path.open('wb') as file:
        file.seek(8 + _ROOM)
        for name, tensor in tensors:
            flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu()
            file.write(memoryview(flat.numpy()))
            header[name] = {
                'dtype': _NAMES[tensor.dtype],
                'shape': list(tensor.shape),
                'data_offsets': [end, end + flat.numel()],
            }
            end += flat.numel()
        text = json.dumps(header).encode()
        assert len(text) <= _ROOM, f'a header of {len(text)} bytes; make more room'
        file.seek(0)
        file.write(_ROOM.to_bytes(8, 'little') + text.ljust(_ROOM))


class TensorFile:
    """A file that `write_tensors` wrote. BackendError if it is not whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header, self._begin = _read_header(path)
        self.metadata: dict[str, str] = self._header.pop('__metadata__', {})
        end = max((row['data_offsets'][1] for row in self._header.values()), default=0)
        size, wanted = path.stat().st_size, self._begin + end
        if size != wanted:
            state = 'truncated' if size < wanted else 'too long'
            raise BackendError(
                f'{path} is {state}: {size} of {wanted} bytes; copy the bundle again.'
            )
        with path.open('rb') as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def __contains__(self, name: str) -> bool:
        return name in self._header

    def bytes_of(self, prefixes: tuple[str, ...]) -> int:
        """Bytes of the tensors whose names begin with one of ``prefixes``."""
        spans = [r['data_offsets'] for n, r in self._header.items() if n.startswith(prefixes)]
        return sum(end - begin for begin, end in spans)

    def load(self, name: str, device: str = 'cpu') -> Tensor:
        """The tensor ``name``, a copy on ``device``. BackendError if it is not there."""
        try:
            row = self._header[name]
        except KeyError:
            raise BackendError(
                f'{self.path} lacks the tensor {name!r}; export the bundle again.'
            ) from None
        begin, end = row['data_offsets']
        raw = torch.frombuffer(
            self._map, dtype=torch.uint8, count=end - begin, offset=self._begin + begin
        )
        shaped = raw.to(device, copy=True).view(_DTYPES[row['dtype']])
        return shaped.reshape(row['shape'])


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with path.open('rb') as file:
            length = int.from_bytes(file.read(8), 'little')
            text = file.read(min(length, 100 << 20))
        header = json.loads(text)
        for name, row in header.items():
            if name != '__metadata__':
                begin, end = row['data_offsets']
                assert 0 <= begin <= end
                assert row['dtype'] in _DTYPES
                assert all(isinstance(n, int) for n in row['shape'])
    except OSError as error:
        raise BackendError(f'{path} cannot be read ({error.strerror}).') from error
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(
            f'{path} is truncated or no file of tensors ({error}); copy the bundle again.'
        ) from error
    return header, 8 + length
