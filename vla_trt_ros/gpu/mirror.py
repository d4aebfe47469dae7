"""The GPU's side of a host array.

Stages of a chain share host arrays by name (backends/base.py). The GPU's copy of an array is found
by the array's address, so engines that share the array share the copy, and what one writes the
next one reads in place.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from vla_trt_ros.gpu.cuda import DeviceBuffer, download, upload


@dataclass(slots=True, eq=False)
class Mirror:
    """GPU memory of one host array, and who uses it."""

    buffer: DeviceBuffer
    written: bool = False
    """Some engine writes it: the host's values do not count."""
    read: bool = False
    """Some engine reads it."""

    @property
    def address(self) -> int:
        """Where it is on the GPU; never changes."""
        return self.buffer.address

    def upload(self, array: NDArray[Any], stream: int) -> None:
        """Queue a copy from the host."""
        upload(self.address, array, stream)

    def download(self, array: NDArray[Any], stream: int) -> None:
        """Queue a copy to the host."""
        download(array, self.address, stream)


_mirrors: dict[int, Mirror] = {}


def mirror_of(array: NDArray[Any]) -> Mirror:
    """The GPU memory of ``array``, allocated and zeroed at the first call; it is dropped when the
    array is.
    """
    address = array.ctypes.data
    found = _mirrors.get(address)
    if found is None:
        found = _mirrors[address] = Mirror(DeviceBuffer(array.nbytes))
        weakref.finalize(array, _mirrors.pop, address, None)
    return found


def mirrors_of(
    inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
) -> dict[str, Mirror]:
    """The mirrors of an engine's arrays by name, told that it reads and writes them."""
    found = {name: mirror_of(array) for name, array in (*inputs.items(), *outputs.items())}
    for name, mirror in found.items():
        mirror.read |= name in inputs
        mirror.written |= name in outputs
    return found
