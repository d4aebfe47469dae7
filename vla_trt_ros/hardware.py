"""What this machine is, in the words that a benchmark record needs."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cpu_name() -> str:
    """'<model> x <cores>' of the processor."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                model = line.partition(':')[2].strip()
                break
    except OSError:
        pass  # not Linux
    return f'{model} x {os.cpu_count()}'
