"""What `vla-trt export` says while it makes graphs, and the record of it."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

from vla_trt_ros.hardware import cpu_name


class ExportLog:
    """Says which graph is being made, and remembers how long each took."""

    def __init__(self, begin: float, count: int) -> None:
        self._begin, self._count = begin, count
        self._starts: list[tuple[str, float]] = []

    def __call__(self, graph: str) -> None:
        """``graph`` is begun."""
        elapsed = time.monotonic() - self._begin
        self._starts.append((graph, elapsed))
        done = f'[{len(self._starts):2}/{self._count}]'
        line = f'{done} {elapsed:5.1f} s {peak_gb():5.1f} GB  {graph}'
        print(line, file=sys.stderr, flush=True)

    def record(
        self, total: float, files: dict[str, int], torch: str, command: str
    ) -> dict[str, Any]:
        """What a benchmark file holds."""
        ends = [*(at for _, at in self._starts[1:]), total][: len(self._starts)]
        return {
            'command': command,
            'clock': 'wall, from the start of the verb; the last graph includes hashing all files',
            'hardware': cpu_name(),
            'software': torch,
            'total_s': round(total, 1),
            'before_first_graph_s': round(self._starts[0][1] if self._starts else total, 1),
            'peak_memory_gb': round(peak_gb(), 2),
            'graph_s': {
                name: round(end - at, 1)
                for (name, at), end in zip(self._starts, ends, strict=True)
            },
            'file_bytes': files,
        }


def peak_gb() -> float:
    """Most memory that this process held, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
