"""A bag folder as ``ros2 bag`` makes it: MCAP files and metadata.yaml.

Every second reaches the disk, so that a killed process loses no more. A full disk ends the bag
properly: room for its index is kept aside from the start.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import yaml

from vla_trt_ros.bags.decoding import definition_of
from vla_trt_ros.bags.mcap import McapWriter, Topic
from vla_trt_ros.bags.parts import METADATA
from vla_trt_ros.closing import Closing
from vla_trt_ros.errors import ConfigError, VlaError

FLUSH_EVERY = 1.0
"""Seconds that a kill may cost."""
_RESERVE = '.reserve'
_RESERVE_BYTES = 4 << 20


class BagFull(VlaError):
    """The disk is full; the bag is closed, and what it holds is said."""


class BagWriter(Closing):
    """Writes the new bag ``out``; use it in a ``with``. ``split_bytes`` begin a new file,
    0 for one file. ConfigError where ``out`` exists or cannot be made.
    """

    def __init__(self, out: Path, *, zstd: bool = False, split_bytes: int = 0) -> None:
        self.out = out
        self._zstd = zstd
        self._split_bytes = split_bytes
        try:
            out.mkdir(parents=True)
        except FileExistsError:
            raise ConfigError(f'{out} exists: a recording goes into a new folder.') from None
        except OSError as error:
            raise ConfigError(f'{out} cannot be made ({error.strerror}).') from error
        self._topics: dict[str, Topic] = {}
        self._done: list[dict[str, Any]] = []
        self._totals: dict[int, int] = {}
        self._size = 0
        self._flushed = time.monotonic()
        self._closed = False
        try:
            (out / _RESERVE).write_bytes(bytes(_RESERVE_BYTES))
            self._file = self._begin()
        except OSError as error:
            (out / _RESERVE).unlink(missing_ok=True)
            raise BagFull(f'{out}: {error.strerror}; nothing is recorded.') from error

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._size + (0 if self._closed else self._file.size + self._file.pending)

    @property
    def counts(self) -> dict[str, int]:
        """Messages on the disk by topic."""
        return {
            name: self._totals.get(t.id, 0) + (0 if self._closed else self._file.counts[t.id])
            for name, t in self._topics.items()
        }

    def add(self, name: str, kind: str, *, definition: str = '', qos: str = '') -> None:
        """A topic of the type ``kind`` ('sensor_msgs/msg/Image'), before its first message.

        ``definition`` is looked up where it is empty; ConfigError where it is not found.
        """
        if name in self._topics:
            return
        text = definition or definition_of(kind)
        topic = Topic(len(self._topics) + 1, name, kind, text, qos)
        self._topics[name] = topic
        self._file.add(topic)

    def write(self, name: str, time_ns: int, data: bytes | memoryview) -> None:
        """One message as CDR, recorded at ``time_ns``. BagFull where the disk is full; what comes
        after that is left.
        """
        if self._closed:
            return
        try:
            self._file.write(self._topics[name].id, time_ns, data)
            if self._split_bytes and self._file.size >= self._split_bytes:
                self._end_file()
                self._file = self._begin()
            elif time.monotonic() - self._flushed > FLUSH_EVERY:
                self.flush()
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        """Everything onto the disk. BagFull where it is full."""
        if self._closed:
            return
        try:
            self._file.flush()
        except OSError as error:
            self._give_up(error)
        self._flushed = time.monotonic()

    def close(self) -> None:
        """End the file and write metadata.yaml. BagFull where the disk is full."""
        if not self._closed:
            self.flush()
            self._finish()

    def _begin(self) -> McapWriter:
        path = self.out / f'{self.out.name}_{len(self._done)}.mcap'
        file = McapWriter(path, zstd=self._zstd)
        for topic in self._topics.values():
            file.add(topic)
        return file

    def _end_file(self) -> None:
        file = self._file
        file.close()
        self._size += file.size
        for number, count in file.counts.items():
            self._totals[number] = self._totals.get(number, 0) + count
        count = sum(file.counts.values())
        self._done.append(
            {
                'path': file.path.name,
                'starting_time': {'nanoseconds_since_epoch': file.start_ns if count else 0},
                'duration': {'nanoseconds': file.end_ns - file.start_ns if count else 0},
                'message_count': count,
            }
        )

    def _finish(self) -> None:
        (self.out / _RESERVE).unlink(missing_ok=True)
        try:
            self._end_file()
        finally:
            self._closed = True
        (self.out / METADATA).write_text(yaml.safe_dump(self._metadata()), encoding='utf-8')

    def _give_up(self, error: OSError) -> None:
        """End the bag in the room that was kept for it, and say what it holds."""
        self._file.forget()
        saved, size = sum(self.counts.values()), self.size
        index = ''
        try:
            self._finish()
        except OSError:
            index = ' without their index (`ros2 bag reindex` writes it)'
        why = 'the disk is full' if error.errno == errno.ENOSPC else error.strerror
        raise BagFull(
            f'{self.out}: {why}. {saved} messages, {size / 1e6:.1f} MB, are saved and can be '
            f'read{index}; make room before the next recording.'
        ) from error

    def _metadata(self) -> dict[str, Any]:
        total = sum(self._totals.values())
        full = [f for f in self._done if f['message_count']]
        starts = [f['starting_time']['nanoseconds_since_epoch'] for f in full] or [0]
        ends = [
            f['starting_time']['nanoseconds_since_epoch'] + f['duration']['nanoseconds']
            for f in full
        ] or [0]
        topics = [
            {
                'topic_metadata': {
                    'name': t.name,
                    'type': t.type,
                    'serialization_format': 'cdr',
                    'offered_qos_profiles': t.qos,
                },
                'message_count': self._totals.get(t.id, 0),
            }
            for t in self._topics.values()
        ]
        return {
            'rosbag2_bagfile_information': {
                'version': 5,
                'storage_identifier': 'mcap',
                'relative_file_paths': [f['path'] for f in self._done],
                'duration': {'nanoseconds': max(ends) - min(starts)},
                'starting_time': {'nanoseconds_since_epoch': min(starts)},
                'message_count': total,
                'topics_with_message_count': topics,
                'compression_format': '',
                'compression_mode': '',
                'files': self._done,
            }
        }


def qos_text(*, reliable: bool, latched: bool, depth: int = 10) -> str:
    """What a publisher offers, as rosbag2 writes it: players then publish alike."""

    def forever() -> dict[str, int]:
        return {'sec': 2147483647, 'nsec': 4294967295}

    profile = {
        'history': 1,
        'depth': depth,
        'reliability': 1 if reliable else 2,
        'durability': 1 if latched else 2,
        'deadline': forever(),
        'lifespan': forever(),
        'liveliness': 1,
        'liveliness_lease_duration': forever(),
        'avoid_ros_namespace_conventions': False,
    }
    return yaml.safe_dump([profile], sort_keys=False, default_flow_style=False).strip()
