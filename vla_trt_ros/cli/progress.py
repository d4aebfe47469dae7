"""A progress bar on stderr: for a person on a terminal, silent elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar('T')
_WIDTH = 30


def bar(
    items: Iterable[T],
    label: str,
    *,
    total: int | None = None,
    note: Callable[[], str] = lambda: '',
) -> Iterator[T]:
    """``items``, with a bar of how many are done and the time that the rest will take.

    ``total`` is their number where ``items`` has no length; ``note`` is asked for a few words to
    stand behind, such as how many went well.
    """
    count = len(items) if isinstance(items, Sized) else total or 0
    begin = shown = time.monotonic()
    wide = 0
    for i, item in enumerate(items):
        yield item
        now = time.monotonic()
        if sys.stderr.isatty() and count and (now - shown > 0.1 or i + 1 == count):
            shown = now
            done = (i + 1) / count
            left = (now - begin) * (1 - done) / done
            full = '#' * round(_WIDTH * done)
            line = f'{label} [{full:<{_WIDTH}}] {i + 1}/{count} {left:4.0f} s {note()}'
            sys.stderr.write(f'\r{line:<{wide}}')
            wide = len(line)
    if sys.stderr.isatty():
        sys.stderr.write('\r' + ' ' * wide + '\r')
