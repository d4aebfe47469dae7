"""A ring of fixed places that bytes are put into for the GPU, one copy each.

Each place has page-locked host memory and GPU memory; on a GPU that shares the processor's memory
(Jetson) it has one mapped memory, and nothing is copied. A place is written again only when nobody
holds its lease and everything that was queued to read it is done.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

from vla_trt_ros.gpu.cuda import (
    DeviceBuffer,
    Event,
    Stream,
    device_address,
    is_integrated,
    pinned,
    upload,
)


class Place:
    """Memory of one entry, and the events that order its writer and readers."""

    def __init__(self, nbytes: int, mapped: bool) -> None:
        self.host: NDArray[np.uint8] = pinned((nbytes,), np.uint8, mapped=mapped)
        self.device = None if mapped else DeviceBuffer(nbytes)
        self.address = self.device.address if self.device else device_address(self.host)
        self.copied = Event(timing=False)
        self.readers: dict[int, Event] = {}
        """Stream to the end of what reads there; kept, so that a frame allocates nothing."""


class Lease:
    """The bytes of one `UploadRing.put`; they stay as they are while this object lives.

    ``uploads`` and ``upload_bytes`` are the host-to-device copies that they took.
    """

    def __init__(self, place: Place, free: deque[Place], uploads: int, nbytes: int) -> None:
        self.address = place.address
        self.uploads, self.upload_bytes = uploads, uploads * nbytes
        self._place = place
        weakref.finalize(self, free.append, place).atexit = False

    def wait(self, stream: int) -> None:
        """Let what is queued on ``stream`` from now on find the bytes there."""
        self._place.copied.hold(stream)

    def read(self, stream: int) -> None:
        """What is queued on ``stream`` so far reads the bytes: no write before it is done."""
        readers = self._place.readers
        if stream not in readers:
            readers[stream] = Event(timing=False)
        readers[stream].record(stream)


class UploadRing:
    """``places`` places of ``nbytes`` bytes, and a stream of its own for the copies.

    ``mapped`` chooses between copying and reading host memory; by default, what this GPU wants.
    One thread puts; leases may be used and dropped in any.
    """

    def __init__(self, nbytes: int, places: int = 4, *, mapped: bool | None = None) -> None:
        self.nbytes = nbytes
        self.mapped = is_integrated() if mapped is None else mapped
        self._stream = Stream()
        self._free = deque(Place(nbytes, self.mapped) for _ in range(places))

    def put(self, data: NDArray[np.uint8]) -> Lease | None:
        """Copy ``data`` [n], n at most ``nbytes``, into a place; None if all places are held.

        Returns when ``data`` may change; the GPU's copy may still be under way.
        """
        try:
            place = self._free.popleft()
        except IndexError:
            return None
        try:
            self._fill(place, data)
        except BaseException:
            self._free.append(place)
            raise
        return Lease(place, self._free, 0 if self.mapped else 1, data.nbytes)

    def _fill(self, place: Place, data: NDArray[np.uint8]) -> None:
        host = place.host[: data.size]
        if self.mapped:
            for reader in place.readers.values():
                reader.wait()
            np.copyto(host, data)
            return
        place.copied.wait()  # the copy before this one reads the host memory; long done
        np.copyto(host, data)
        for reader in place.readers.values():
            reader.hold(self._stream.handle)
        upload(place.address, host, self._stream.handle)
        place.copied.record(self._stream.handle)
