"""The perception thread: takes turns at the cameras, looks at the newest frame of each.

It runs at a lower priority than the policy, and never makes anybody wait: a frame that came while
it looked at another is looked at if it is still the newest one, or not at all.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping

from vla_trt_ros.camera.latest import LatestFrames
from vla_trt_ros.datatypes import CameraFrame, Counters
from vla_trt_ros.errors import BadInput
from vla_trt_ros.perception.choice import Rota, Turn
from vla_trt_ros.perception.scene import Perception, Scene

_BETWEEN = 0.1  # seconds until a tick that does not end is looked beside
_RETRY = 0.005  # seconds until a camera without a new frame is asked again
NICE = 10
"""Added to the nice value of the thread, where the system lets a thread have its own."""


class PerceptionThread:
    """Looks while started; everything it is given is called in its own thread.

    ``frames`` gives the slots to read, or None while there are none. With ``after_chunk`` a look
    begins when no tick of the policy is under way. ``budgets_ms`` is the
    max_age_ms of each camera: older frames are not looked at. ``on_scene`` gets each scene, its
    frame and the time at which the look began; ``on_fault`` the camera of a look that failed, and
    why.
    """

    def __init__(
        self,
        perception: Perception,
        frames: Callable[[], LatestFrames | None],
        turns: Mapping[str, Turn],
        budgets_ms: Mapping[str, float],
        now_ns: Callable[[], int],
        on_scene: Callable[[Scene, CameraFrame, int], None],
        on_fault: Callable[[str, str], None],
        *,
        after_chunk: bool = False,
    ) -> None:
        self._wait = _BETWEEN if after_chunk else 0.0
        self._perception = perception
        self._frames = frames
        self._turns = dict(turns)
        self._budgets_ms = dict(budgets_ms)
        self._now_ns = now_ns
        self._on_scene = on_scene
        self._on_fault = on_fault
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: dict[str, tuple[int, int]] = {}
        self.counters = {view: Counters() for view in turns}
        """Per camera: looks, skipped, rejected, stale, failed."""
        self.last_ns: dict[str, int] = {}
        """Stamp of the frame that each camera was last seen by."""

    def start(self) -> None:
        """Begin, with nothing seen yet."""
        self._stop.clear()
        self._seen.clear()
        self._thread = threading.Thread(target=self._run, name='perception')
        self._thread.start()

    def stop(self) -> None:
        """End after the look in progress; does nothing where not started."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        lower_priority()
        rota = Rota(self._turns, time.monotonic())
        while not self._stop.is_set():
            now = time.monotonic()
            view = rota.next(now)
            if view is None:
                self._stop.wait(rota.wait(now))
                continue
            frame = self._new_frame(view)
            if frame is None:
                rota.again(view, now, _RETRY)
                continue
            self._look(view, frame)
            self.counters[view].add('skipped', rota.done(view, time.monotonic()))

    def _new_frame(self, view: str) -> CameraFrame | None:
        frames = self._frames()
        if frames is not None and self._wait:
            frames.wait_between(self._wait)
        frame = frames.beside(view) if frames is not None else None
        if frames is None or frame is None:
            return None
        stamp_ns, received = self._seen.get(view, (-1, 0))
        if frame.stamp_ns == stamp_ns:
            return None
        now_received = frames.stats()[view].received
        if 0 <= now_received - received < self._turns[view].every and stamp_ns >= 0:
            return None
        self._seen[view] = (frame.stamp_ns, now_received)
        if (self._now_ns() - frame.stamp_ns) / 1e6 > self._budgets_ms[view]:
            self.counters[view].add('stale')
            return None
        return frame

    def _look(self, view: str, frame: CameraFrame) -> None:
        counters, begin_ns = self.counters[view], self._now_ns()
        try:
            scene = self._perception.look(view, frame)
        except BadInput as error:
            counters.add('rejected')
            self._on_fault(view, str(error))
        except Exception as error:
            # As in the inference thread: an engine can fail in ways we cannot list. No detections
            # come, so a gate that depends on them holds; the node lives on to say so.
            counters.add('failed')
            self._on_fault(view, f'perception failed: {error!r}\n{traceback.format_exc()}')
        else:
            counters.add('looks')
            self.last_ns[view] = scene.stamp_ns
            self._on_scene(scene, frame, begin_ns)


def lower_priority() -> None:
    """Give this thread less of the processor than the others; Linux alone has such threads."""
    with contextlib.suppress(OSError, AttributeError):
        thread = threading.get_native_id()
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(19, nice + NICE))
