"""Records what the cameras saw, with a line of text under it, to a file that a browser plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol

from PIL import Image

from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.viz.canvas import Canvas, Mark


class _Writer(Protocol):
    def write(self, page: Uint8Array) -> None: ...

    def close(self) -> None: ...


class Recorder:
    """Writes ``path`` (.mp4 or .gif) at ``fps``; a second of the film is a second of the clock.

    Frames that come faster are left out, gaps repeat the last one, and after ``max_seconds`` no
    more are taken. An .mp4 (H.264) goes to disk frame by frame; a .gif is kept in memory, at about
    130 kB a frame, until ``close``. Use it from one thread.
    ConfigError for another suffix, or where the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        views: Sequence[str] = ('base', 'wrist'),
        *,
        fps: float = 10.0,
        max_seconds: float = 120.0,
        tile: tuple[int, int] = (224, 224),
    ) -> None:
        self.path = Path(path)
        if self.path.suffix not in _WRITERS:
            raise ConfigError(f'{self.path}: a recording ends in .mp4 or .gif.')
        if not 1.0 <= fps <= 60.0:
            raise ConfigError(f'fps {fps} is outside 1 to 60.')
        self._fps = fps
        self._limit = round(fps * max_seconds)
        self._canvas = Canvas(views, tile)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(b'')
        except OSError as error:
            raise ConfigError(f'{self.path}: cannot be written: {error.strerror}.') from error
        self._writer: _Writer | None = _WRITERS[self.path.suffix](
            self.path, self._canvas.size, fps
        )
        self._start: float | None = None
        self._last: Uint8Array | None = None
        self.frames = 0
        """Frames in the film so far."""
        self.dropped = 0
        """Frames given after ``max_seconds``."""

    def wants(self, time: float) -> bool:
        """True where ``add`` at this time would take the frame: ask before decoding an image."""
        return self._writer is not None and self._index(time) >= self.frames

    def add(
        self,
        time: float,
        images: Mapping[str, Uint8Array],
        caption: str = '',
        mark: Mark | None = None,
    ) -> bool:
        """Add what the views show at ``time``, seconds of any steady clock.

        ``images``: view -> uint8 [H, W, 3], RGB; copied. ``caption`` and ``mark`` as for
        `Canvas.draw`. Returns whether the frame was taken.
        """
        if self._start is None:
            self._start = time
        if self._writer is None or not self.wants(time):
            return False
        index = self._index(time)
        if index >= self._limit:
            self.dropped += 1
            return False
        page = self._canvas.draw(images, caption, mark)
        while self.frames < index:
            self._write(page if self._last is None else self._last)
        self._write(page)
        self._last = page
        return True

    def close(self) -> Path:
        """Finish the file and return its path; ConfigError if nothing was recorded."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
            if self.frames == 0:
                self.path.unlink(missing_ok=True)
                raise ConfigError(f'{self.path}: no frame was recorded: no camera delivered.')
        return self.path

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except ConfigError:
            # The first error is the one to see.
            if error is None:
                raise

    def _index(self, time: float) -> int:
        start = time if self._start is None else self._start
        # The small term keeps a clock of exactly fps ticks from losing one to rounding.
        return int((time - start) * self._fps + 1e-6)

    def _write(self, page: Uint8Array) -> None:
        assert self._writer is not None
        self._writer.write(page)
        self.frames += 1


class _Mp4Writer:
    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        try:
            import av
        except ImportError:
            raise ConfigError(
                f'{path}: MP4 needs the Python package av: run `pip install "vla_trt_ros[sim]"`, '
                'or record a .gif.'
            ) from None
        self._frame = av.VideoFrame
        self._file = av.open(str(path), 'w', options={'movflags': 'faststart'})
        # One thread and a quick preset: the recorder shares two cores with what it films.
        options = {'preset': 'veryfast', 'crf': '23', 'threads': '1'}
        rate = Fraction(fps).limit_denominator(1000)
        self._stream = self._file.add_stream('libx264', rate=rate, options=options)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = 'yuv420p'

    def write(self, page: Uint8Array) -> None:
        frame = self._frame.from_ndarray(page, format='rgb24')
        self._file.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._file.mux(self._stream.encode())
        self._file.close()


class _GifWriter:
    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self._path = path
        self._duration_ms = round(1000.0 / fps)
        self._pages: list[Image.Image] = []

    def write(self, page: Uint8Array) -> None:
        self._pages.append(Image.fromarray(page).quantize(128))

    def close(self) -> None:
        if self._pages:
            first, *rest = self._pages
            first.save(
                self._path,
                save_all=True,
                append_images=rest,
                duration=self._duration_ms,
                loop=0,
            )


_WRITERS: dict[str, type[_Mp4Writer] | type[_GifWriter]] = {'.mp4': _Mp4Writer, '.gif': _GifWriter}
