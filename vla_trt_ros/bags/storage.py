"""One storage file of a bag, whole or not, as a stream of raw messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vla_trt_ros.bags.decoding import Channel
from vla_trt_ros.bags.parts import is_compressed, storage_suffix
from vla_trt_ros.bags.salvage import (
    BrokenMcap,
    BrokenSqlite,
    Message,
    missing_bytes,
    unpack_file,
    unzstd,
)
from vla_trt_ros.errors import ConfigError

_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
Wanted = Callable[[Channel], bool]


class StorageFile:
    """``channels`` with their message counts where the file's index has them (else 0).

    ``note`` says in words what of the file cannot be read, once `messages` has ended.
    """

    def __init__(self, path: Path, channels: list[tuple[Channel, int]]) -> None:
        self.path = path
        self.channels = channels
        self.note = ''

    def messages(self, wanted: Wanted) -> Iterator[Message]:
        """Those of the channels that ``wanted`` says yes to."""
        raise NotImplementedError


@contextmanager
def open_storage(path: Path) -> Iterator[StorageFile]:
    """Open an .mcap, .db3 or .bag, unpacked first where it is compressed as a whole. ConfigError
    where nothing can be read.
    """
    if not is_compressed(path):
        with _open_plain(path, path) as file:
            yield file
        return
    with TemporaryDirectory(prefix='bag-') as folder:
        plain = Path(folder) / path.stem
        try:
            unpack_file(path, plain)
        except OSError as error:
            raise ConfigError(
                f'{path} cannot be unpacked to {folder} ({error}): make room, or name another '
                'place in TMPDIR.'
            ) from error
        with _open_plain(plain, path) as file:
            yield file


@contextmanager
def _open_plain(path: Path, shown: Path) -> Iterator[StorageFile]:
    if path.stat().st_size == 0:
        raise ConfigError(f'{shown} is empty: nothing was recorded.')
    if storage_suffix(path) == '.bag':
        yield from _ros1(path, shown)
        return
    from rosbags.rosbag2 import Reader

    if storage_suffix(path) == '.db3' and missing_bytes(path):
        yield _Salvaged(shown, BrokenSqlite(path))
        return
    reader: Any = Reader(path)
    try:
        reader.open()
    except Exception as error:  # rosbags' own, apsw's, struct's, and IndexErrors of a cut file
        broken = BrokenMcap(path) if storage_suffix(path) == '.mcap' else BrokenSqlite(path)
        if next(broken.messages(), None) is None:
            raise ConfigError(f'{shown}: no message of it can be read ({error}).') from error
        yield _Salvaged(shown, broken)
        return
    try:
        if reader.message_count and not getattr(reader.storage, 'chunks', True):
            # Without chunks rosbags wants every message in the order of time; recorders do not.
            yield _Salvaged(shown, BrokenMcap(path))
        else:
            yield _Whole(shown, reader)
    finally:
        reader.close()


class _Whole(StorageFile):
    def __init__(self, path: Path, reader: Any, ros1: bool = False) -> None:
        self._reader = reader
        self._links = [(_channel(c, ros1), c) for c in reader.connections]
        super().__init__(path, [(channel, c.msgcount) for channel, c in self._links])

    def messages(self, wanted: Wanted) -> Iterator[Message]:
        chosen = {c.id: (channel, c) for channel, c in self._links if wanted(channel)}
        if not chosen:
            return
        last = 'its beginning'
        found = self._reader.messages([c for _, c in chosen.values()])
        while True:
            try:
                connection, time_ns, raw = next(found)
            except StopIteration:
                return
            except Exception as error:  # a chunk or page that is broken, in any library's words
                self.note = f'{self.path} cannot be read behind {last} ({error}).'
                return
            last = f'{time_ns / 1e9:.3f} s'
            yield chosen[connection.id][0], time_ns, _plain(raw)


class _Salvaged(StorageFile):
    def __init__(self, path: Path, broken: BrokenMcap | BrokenSqlite) -> None:
        self._broken = broken
        super().__init__(path, [(c, broken.counts[c.id]) for c in broken.channels.values()])

    def messages(self, wanted: Wanted) -> Iterator[Message]:
        for channel, time_ns, raw in self._broken.messages():
            if wanted(channel):
                yield channel, time_ns, _plain(raw)
        if self._broken.ended:
            return
        self.note = (
            f'{self.path} has no end: the recorder was stopped hard, or the copy broke off. What '
            f'is whole was read; {self._broken.lost_bytes} bytes behind it are lost.'
        )


def _ros1(path: Path, shown: Path) -> Iterator[StorageFile]:
    from rosbags.rosbag1 import Reader, ReaderError

    reader = Reader(path)
    try:
        reader.open()
    except ReaderError as error:
        raise ConfigError(f'{shown} cannot be read ({error}): try `rosbag reindex`.') from error
    try:
        yield _Whole(shown, reader, ros1=True)
    finally:
        reader.close()


def _channel(connection: Any, ros1: bool) -> Channel:
    definition = connection.msgdef
    encoding = 'ros1msg' if ros1 else definition.format.name.lower()
    encoding = {'msg': 'ros2msg', 'idl': 'ros2idl'}.get(encoding, encoding)
    text = definition.data or ''
    return Channel(connection.id, connection.topic, connection.msgtype, text, encoding, ros1)


def _plain(raw: bytes) -> bytes:
    """A message, unpacked where each is compressed; CDR never begins as zstd does."""
    return unzstd(raw) if raw[:4] == _ZSTD_MAGIC else raw
