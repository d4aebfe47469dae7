"""A progress bar on stderr: for a person on a terminal, silent elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar('T')
_WIDTH = 30


def bar(items: Sequence[T], label: str) -> Iterator[T]:
    """``items``, with a bar of how many are done and the time that the rest will take."""
    begin = shown = time.monotonic()
    for i, item in enumerate(items):
        yield item
        now = time.monotonic()
        if sys.stderr.isatty() and (now - shown > 0.1 or i + 1 == len(items)):
            shown = now
            done = (i + 1) / len(items)
            left = (now - begin) * (1 - done) / done
            full = '#' * round(_WIDTH * done)
            sys.stderr.write(f'\r{label} [{full:<{_WIDTH}}] {i + 1}/{len(items)} {left:4.0f} s ')
    if sys.stderr.isatty():
        sys.stderr.write('\r' + ' ' * (_WIDTH + len(label) + 24) + '\r')
