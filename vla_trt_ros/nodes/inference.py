"""The inference thread: waits for a new frame of every camera, ticks, hands the result on.

Callbacks only fill slots; this thread is the one that calls the policy. Where chunks overlap a
second thread waits for results, so that neither a result waits for frames nor frames for a result.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from vla_trt_ros.datatypes import Reason
from vla_trt_ros.errors import VlaError
from vla_trt_ros.freshness import Freshness, reason_of
from vla_trt_ros.pacing import Pace
from vla_trt_ros.pipeline import PendingTick, Pipeline, TickResult

T = TypeVar('T')

_WAIT = 0.1  # seconds until a silent camera is looked at again
_RATE_WINDOW = 2.0  # seconds


class InferenceThread:
    """Runs ``pipeline`` while started.

    ``now_ns`` reads the ROS clock; ``on_result`` is called with each chunk, in their order, and
    ``on_state`` with each change between running and not, one call at a time: in this thread, or
    in that of results.
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
        self._places = pipeline.policy.places
        self._free = threading.Semaphore(self._places)
        self._begun: queue.SimpleQueue[tuple[int, PendingTick] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._refused = -1
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
        """End after the ticks in progress, whose chunks come; does nothing where not started."""
        self._stop.set()
        self._pipeline.frames.wake()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        results = None
        if self._places > 1:
            results = threading.Thread(target=self._deliver_all, name='results')
            results.start()
        pace = Pace(self._pipeline.settings.max_rate, time.monotonic())
        while not self._stop.is_set():
            if not self._free.acquire(timeout=_WAIT):
                continue
            if self._new_pair() and not self._stop.is_set():
                self._tick()
                self._stop.wait(pace.after_tick(time.monotonic()))
            else:
                self._free.release()
                self._become(self._pipeline.readiness(self._now_ns()))
        if results is not None:
            self._begun.put(None)
            results.join()

    def _new_pair(self) -> bool:
        if self._places > 1:
            try:
                # Until the GPU would begin at once, frames may still be replaced by newer ones.
                self._pipeline.wait_turn()
            except VlaError:  # the result that failed tells of it
                self._stop.wait(_WAIT)
                return False
        return self._pipeline.frames.wait_new(_WAIT)

    def _tick(self) -> None:
        now_ns, order = self._now_ns(), next(self._order)
        ready = self._pipeline.readiness(now_ns)
        begun = None
        if ready.ok:
            begun = self._try(lambda: self._pipeline.submit(now_ns), order)
        else:
            self._pipeline.frames.take()  # seen: wait for the next pair, not in a busy loop
            self._become(ready, order)
        if begun is None:
            self._free.release()
            self._pipeline.frames.ticked()
        elif self._places > 1:
            self._begun.put((order, begun))
        else:
            self._deliver(begun, order)

    def _deliver_all(self) -> None:
        while (next_one := self._begun.get()) is not None:
            order, begun = next_one
            self._deliver(begun, order)

    def _deliver(self, begun: PendingTick, order: int) -> None:
        result = self._try(lambda: self._pipeline.finish(begun), order)
        self._free.release()
        try:
            if result is not None:
                self._tell(result, order)
        finally:
            self._pipeline.frames.ticked()

    def _tell(self, result: TickResult, order: int) -> None:
        self._times.append(time.monotonic())
        while self._times[0] < time.monotonic() - _RATE_WINDOW:
            self._times.popleft()
        self.chunks += 1
        self.clamped += result.chunk.clamped
        self._on_result(result)
        self._become(Freshness(), order)

    def _try(self, what: Callable[[], T], order: int) -> T | None:
        """What ``what`` gives; None where it failed, which has become the state then."""
        try:
            return what()
        except VlaError as error:
            state = Freshness(reason_of(error), str(error))
        except Exception as error:
            # An engine can fail in ways we cannot list. The arm holds, since no chunk comes; the
            # node lives on to say so.
            text = f'inference failed: {error!r}\n{traceback.format_exc()}'
            state = Freshness(Reason.POLICY_ERROR, text)
        with self._lock:
            self.failures += 1
        self._become(state, order)
        return None

    def _become(self, state: Freshness, order: int | None = None) -> None:
        """``order`` is that of the tick which ``state`` is about: a chunk that was begun before
        frames went stale says nothing of now.
        """
        with self._lock:
            at = next(self._order) if order is None else order
            if state.ok and at < self._refused:
                return
            if not state.ok:
                self._refused = max(self._refused, at)
            changed = state.reason is not self.state.reason
            self.state = state
            if changed:
                self._on_state(state)
