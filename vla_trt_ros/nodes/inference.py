"""The inference thread: waits for a new frame of every camera, ticks, hands the result on.

Callbacks only fill slots; this thread is the one that calls the policy.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

from vla_trt_ros.datatypes import Reason
from vla_trt_ros.errors import VlaError
from vla_trt_ros.freshness import Freshness, reason_of
from vla_trt_ros.pacing import Pace
from vla_trt_ros.pipeline import Pipeline, TickResult

_WAIT = 0.1  # seconds until a silent camera is looked at again
_RATE_WINDOW = 2.0  # seconds


class InferenceThread:
    """Runs ``pipeline`` while started.

    ``now_ns`` reads the ROS clock; ``on_result`` and ``on_state`` are called in this thread, with
    each chunk and with each change between running and not.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        now_ns: Callable[[], int],
        on_result: Callable[[TickResult], None],
        on_state: Callable[[Freshness], None],
    ) -> None:
        self._pipeline = pipeline
        self._now_ns = now_ns
        self._on_result = on_result
        self._on_state = on_state
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._times: deque[float] = deque()
        self.state = Freshness(Reason.NO_IMAGE, 'just activated.')
        self.chunks = 0
        self.clamped = 0
        self.failures = 0

    @property
    def rate_hz(self) -> float:
        """Chunks per second over the last two seconds."""
        since = time.monotonic() - _RATE_WINDOW
        return sum(t > since for t in tuple(self._times)) / _RATE_WINDOW

    def start(self) -> None:
        """Begin; the pipeline must have been reset."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name='inference')
        self._thread.start()

    def stop(self) -> None:
        """End after the tick in progress; does nothing where not started."""
        self._stop.set()
        self._pipeline.frames.wake()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        pace = Pace(self._pipeline.settings.max_rate, time.monotonic())
        while not self._stop.is_set():
            if self._pipeline.frames.wait_new(_WAIT) and not self._stop.is_set():
                try:
                    self._tick()
                finally:
                    self._pipeline.frames.ticked()
                self._stop.wait(pace.after_tick(time.monotonic()))
            else:
                self._become(self._pipeline.readiness(self._now_ns()))

    def _tick(self) -> None:
        now_ns = self._now_ns()
        ready = self._pipeline.readiness(now_ns)
        if not ready.ok:
            self._pipeline.frames.take()  # seen: wait for the next pair, not in a busy loop
            self._become(ready)
            return
        try:
            result = self._pipeline.tick(now_ns)
        except VlaError as error:
            self.failures += 1
            self._become(Freshness(reason_of(error), str(error)))
        except Exception as error:
            # An engine can fail in ways we cannot list. The arm holds, since no chunk comes; the
            # node lives on to say so.
            self.failures += 1
            text = f'inference failed: {error!r}\n{traceback.format_exc()}'
            self._become(Freshness(Reason.POLICY_ERROR, text))
        else:
            self._times.append(time.monotonic())
            while self._times[0] < time.monotonic() - _RATE_WINDOW:
                self._times.popleft()
            self.chunks += 1
            self.clamped += result.chunk.clamped
            self._on_result(result)
            self._become(Freshness())

    def _become(self, state: Freshness) -> None:
        changed = state.reason is not self.state.reason
        self.state = state
        if changed:
            self._on_state(state)
