"""What is whole of a storage file that has no end: the recorder was killed, or the copy broke off.
MCAP files without chunks, of rosbag2's fastwrite profile, are read so, too.

Messages come in the order of the file; in an MCAP chunk, in the order of time.
"""

from __future__ import annotations

import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from vla_trt_ros.bags.decoding import Channel
from vla_trt_ros.errors import ConfigError

Message = tuple[Channel, int, bytes]
"""Channel, log time (ns), bytes."""

MAGIC = b'\x89MCAP0\r\n'
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_LARGEST = 1 << 28


class BrokenMcap:
    """An MCAP file read from its beginning, as far as its records are whole.

    It is read once to find ``channels``, their ``counts`` and ``lost_bytes``, those behind the
    last whole record. ConfigError for a file that is no MCAP.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self.channels: dict[int, Channel] = {}
        self.ended = False
        """Whether the file has an end, and only lacks an index."""
        self.lost_bytes = 0
        with path.open('rb') as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ConfigError(f'{path} is no MCAP file: it does not begin as one.')
        self.counts = Counter(channel.id for channel, _, _ in self.messages())

    def messages(self) -> Iterator[Message]:
        """Every whole message."""
        size = self._path.stat().st_size
        with self._path.open('rb') as file:
            file.seek(len(MAGIC))
            whole = file.tell()
            for code, data, is_whole in _records(file):
                if code == _DATA_END:
                    self.ended = True
                    return
                try:
                    if code == _CHUNK:
                        found = self._chunk(data)
                    else:
                        found = self._one(code, data) if is_whole else []
                except _Broken:
                    break
                whole = file.tell() if is_whole else whole
                yield from found
        self.lost_bytes = size - whole

    def _chunk(self, data: bytes) -> list[Message]:
        try:
            (width,) = struct.unpack_from('<I', data, 28)
            compression = data[32 : 32 + width].decode()
            packed = data[40 + width :]
            body = _unpacked(packed, compression)
        except (struct.error, ValueError) as error:
            raise _Broken from error
        found: list[Message] = []
        for code, record, is_whole in _records(BytesIO(body)):
            found += self._one(code, record) if is_whole else []
        return sorted(found, key=lambda message: message[1])

    def _one(self, code: int, data: bytes) -> list[Message]:
        try:
            if code == _MESSAGE:
                channel, _, time_ns = struct.unpack_from('<HIQ', data)
                if channel in self.channels:
                    return [(self.channels[channel], time_ns, data[22:])]
            elif code == _SCHEMA:
                (number,) = struct.unpack_from('<H', data)
                name, at = _text(data, 2)
                encoding, at = _text(data, at)
                self._schemas[number] = (name, encoding, _text(data, at)[0])
            elif code == _CHANNEL:
                number, schema = struct.unpack_from('<HH', data)
                topic, _ = _text(data, 4)
                name, encoding, text = self._schemas.get(schema, ('unknown', '', ''))
                self.channels[number] = Channel(number, topic, name, text, encoding)
        except (struct.error, UnicodeDecodeError) as error:
            raise _Broken from error
        return []


class BrokenSqlite:
    """A cut database, row by row in the order of writing, as far as its pages go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.channels: dict[int, Channel] = {}
        self.counts: Counter[int] = Counter()
        self.ended = False
        self.lost_bytes = missing_bytes(path)
        self._database = sqlite3.connect(f'file:{path}?mode=ro&immutable=1', uri=True)
        try:
            # Without it SQLite refuses a file that is shorter than its header says.
            self._database.execute('PRAGMA writable_schema=ON')
            self._read_channels()
        except sqlite3.Error as error:
            self._database.close()
            raise ConfigError(f'{path}: nothing of the database can be read ({error}).') from error

    def messages(self) -> Iterator[Message]:
        """Every whole message."""
        rows = self._database.execute('SELECT topic_id, timestamp, data FROM messages NOT INDEXED')
        try:
            for number, time_ns, data in rows:
                if number in self.channels:
                    yield self.channels[number], time_ns, data
        except sqlite3.Error:
            return
        finally:
            self._database.close()

    def _read_channels(self) -> None:
        try:
            definitions = {
                kind: (text, encoding)
                for kind, encoding, text in self._database.execute(
                    'SELECT topic_type, encoding, encoded_message_definition '
                    'FROM message_definitions'
                )
            }
        except sqlite3.Error:  # bags of Humble have no such table
            definitions = {}
        for number, topic, kind in self._database.execute('SELECT id, name, type FROM topics'):
            text, encoding = definitions.get(kind, ('', ''))
            self.channels[number] = Channel(number, topic, kind, text, encoding)


def missing_bytes(path: Path) -> int:
    """How many bytes a database lacks of what its header says; 0 for a whole one."""
    with path.open('rb') as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(b'SQLite format 3\0'):
        raise ConfigError(f'{path} is no SQLite database: it does not begin as one.')
    (page,) = struct.unpack_from('>H', head, 16)
    (pages,) = struct.unpack_from('>I', head, 28)
    promised: int = (65536 if page == 1 else page) * pages
    return max(0, promised - path.stat().st_size)


class _Broken(Exception):
    """A record whose content is not whole."""


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """(opcode, content, whether it is whole); the last one may be cut."""
    while len(head := file.read(9)) == 9:
        code, size = struct.unpack('<BQ', head)
        if size > _LARGEST:  # no record, but what stands where one should
            yield code, b'', False
            return
        data = file.read(size)
        yield code, data, len(data) == size


def _text(data: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from('<I', data, at)
    end = at + 4 + size
    if end > len(data):
        raise _Broken
    return data[at + 4 : end].decode(), end


def _unpacked(data: bytes, compression: str) -> bytes:
    """As much as there is of it: the last chunk may be cut."""
    if not compression:
        return data
    try:
        if compression == 'zstd':
            return bytes(_zstd().ZstdDecompressor().decompress(data))
        if compression == 'lz4':
            return bytes(import_module('lz4.frame').decompress(data))
    except Exception as error:  # each library has its own, and all mean the same here
        raise _Broken from error
    raise _Broken


def unzstd(data: bytes) -> bytes:
    """Decompressed with the library that rosbags brings."""
    return bytes(_zstd().decompress(data))


def to_zstd(data: bytes) -> bytes:
    """The inverse of `unzstd`."""
    return bytes(_zstd().compress(data))


def unpack_file(path: Path, plain: Path) -> None:
    """Decompress ``path`` into ``plain``, as far as it goes. OSError where there is no room."""
    zstd = _zstd()
    frame = zstd.ZstdDecompressor()
    with path.open('rb') as packed, plain.open('wb') as file:
        while data := packed.read(1 << 20):
            while data:
                try:
                    file.write(frame.decompress(data))
                except zstd.ZstdError:
                    return
                data = frame.unused_data if frame.eof else b''
                if data:
                    frame = zstd.ZstdDecompressor()


def _zstd() -> ModuleType:
    try:
        return import_module('compression.zstd')  # Python 3.14
    except ModuleNotFoundError:
        return import_module('backports.zstd')
