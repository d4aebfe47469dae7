"""Plain text tables."""

from __future__ import annotations

from collections.abc import Sequence


def grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line per row, columns padded to their widest word: words to the left, numbers to the
    right. The first row is the header; what stands below it says what a column holds.
    """
    columns = []
    for column in zip(*rows, strict=True):
        wide = max(map(len, column))
        first = next((word for word in column[1:] if word), '')
        words = first[:1].isalpha()
        columns.append([w.ljust(wide) if words else w.rjust(wide) for w in column])
    return ['  '.join(row).rstrip() for row in zip(*columns, strict=True)]
