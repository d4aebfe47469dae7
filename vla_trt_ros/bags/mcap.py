"""One MCAP file, written chunk by chunk: what is on the disk is whole, whenever the process ends.

A file that was not closed lacks its index alone. The format is described on mcap.dev/spec.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vla_trt_ros.bags.salvage import MAGIC, to_zstd

CHUNK_BYTES = 1 << 20
"""A chunk is written when it is longer."""
_NEVER = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Topic:
    """What is written about a topic: ``definition`` is the text of its type and all that it uses,
    as .msg files; ``qos`` is rosbag2's YAML of what its publisher offers, or empty.
    """

    id: int
    name: str
    type: str
    definition: str
    qos: str = ''


@dataclass(slots=True)
class _Chunk:
    body: bytearray = field(default_factory=bytearray)
    index: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    start_ns: int = _NEVER
    end_ns: int = 0


class McapWriter:
    """Writes a new file; ``counts`` are messages by topic, of those that are on the disk.

    OSError leaves the file as it was after the last whole chunk: `close` then still ends it
    properly, if there is room.
    """

    def __init__(self, path: Path, *, zstd: bool = False) -> None:
        self.path = path
        self._pack: Callable[[bytes], bytes] = to_zstd if zstd else bytes
        self._compression = 'zstd' if zstd else ''
        self._topics: dict[int, Topic] = {}
        self._chunk = _Chunk()
        self._indexes: list[bytes] = []
        self.counts: dict[int, int] = {}
        self.start_ns = _NEVER
        self.end_ns = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.size = 0
        """Bytes on the disk."""
        self._append(MAGIC + _record(0x01, _text('ros2') + _text('vla_trt_ros')))

    @property
    def pending(self) -> int:
        """Bytes that are not on the disk yet."""
        return len(self._chunk.body)

    def add(self, topic: Topic) -> None:
        """A topic, before its first message."""
        self._topics[topic.id] = topic
        self._chunk.body += _describe(topic)
        self.counts[topic.id] = 0

    def write(self, topic_id: int, time_ns: int, data: bytes | memoryview) -> None:
        """One serialized message; on the disk once its chunk is full, or with `flush`."""
        chunk = self._chunk
        chunk.index.setdefault(topic_id, []).append((time_ns, len(chunk.body)))
        chunk.body += struct.pack('<BQHIQQ', 0x05, 22 + len(data), topic_id, 0, time_ns, time_ns)
        chunk.body += data
        chunk.start_ns = min(chunk.start_ns, time_ns)
        chunk.end_ns = max(chunk.end_ns, time_ns)
        if len(chunk.body) > CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """What was written so far onto the disk, as a chunk of its own."""
        chunk = self._chunk
        if not chunk.index:
            return
        packed = self._pack(bytes(chunk.body))
        times = struct.pack('<QQ', chunk.start_ns, chunk.end_ns)
        head = times + struct.pack('<QI', len(chunk.body), 0) + _text(self._compression)
        record = _record(0x06, head + struct.pack('<Q', len(packed)) + packed)
        offsets, indexes = b'', b''
        for topic_id, places in chunk.index.items():
            offsets += struct.pack('<HQ', topic_id, self.size + len(record) + len(indexes))
            table = b''.join(struct.pack('<QQ', *place) for place in places)
            indexes += _record(0x07, struct.pack('<H', topic_id) + _sized(table))
        entry = times + struct.pack('<QQ', self.size, len(record)) + _sized(offsets)
        entry += struct.pack('<Q', len(indexes)) + _text(self._compression)
        entry += struct.pack('<QQ', len(packed), len(chunk.body))
        self._append(record + indexes)
        self._indexes.append(_record(0x08, entry))
        for topic_id, places in chunk.index.items():
            self.counts[topic_id] += len(places)
        self.start_ns = min(self.start_ns, chunk.start_ns)
        self.end_ns = max(self.end_ns, chunk.end_ns)
        self._chunk = _Chunk()

    def forget(self) -> None:
        """Drop what is not on the disk: there is no room for it."""
        self._chunk = _Chunk()

    def close(self) -> None:
        """Write the rest and the index."""
        try:
            self.flush()
            end = _record(0x0F, struct.pack('<I', 0))
            begin = self.size + len(end)
            counts = b''.join(struct.pack('<HQ', *pair) for pair in self.counts.items())
            total = sum(self.counts.values())
            statistics = struct.pack(
                '<QHIIIIQQ',
                total,
                len(self._topics),
                len(self._topics),
                0,
                0,
                len(self._indexes),
                self.start_ns if total else 0,
                self.end_ns,
            )
            summary = b''.join(_describe(topic) for topic in self._topics.values())
            summary += b''.join(self._indexes) + _record(0x0B, statistics + _sized(counts))
            footer = _record(0x02, struct.pack('<QQI', begin, 0, 0))
            self._append(end + summary + footer + MAGIC)
        finally:
            os.close(self._file)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            raise
        self.size += len(data)


def _describe(topic: Topic) -> bytes:
    """Schema and channel; both have the topic's number."""
    schema = struct.pack('<H', topic.id) + _text(topic.type) + _text('ros2msg')
    schema += _text(topic.definition)
    channel = struct.pack('<HH', topic.id, topic.id) + _text(topic.name) + _text('cdr')
    channel += _sized(_text('offered_qos_profiles') + _text(topic.qos))
    return _record(0x03, schema) + _record(0x04, channel)


def _record(code: int, content: bytes) -> bytes:
    return struct.pack('<BQ', code, len(content)) + content


def _text(text: str) -> bytes:
    return _sized(text.encode())


def _sized(data: bytes) -> bytes:
    return struct.pack('<I', len(data)) + data
