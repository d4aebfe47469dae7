"""How a process begins that plays episodes for another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def begin_worker() -> None:
    """Leave Ctrl-C to the parent, end when it ends, draw on one thread."""
    # Ctrl-C reaches the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    draw_on_one_thread()


def draw_on_one_thread() -> None:
    """Mesa draws with a thread per core unless told: with a process per core they only collide.
    Read when the first picture is drawn.
    """
    os.environ.setdefault('LP_NUM_THREADS', '0')


def _end_with_parent() -> None:
    """A parent that was killed tells nobody: without this its processes would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
