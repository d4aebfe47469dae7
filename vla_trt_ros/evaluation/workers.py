"""Episodes in several processes: each has its own simulator, its own engines, one thread."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from vla_trt_ros.errors import BackendError
from vla_trt_ros.evaluation.cases import Case, Outcome, Setup
from vla_trt_ros.evaluation.station import Station
from vla_trt_ros.sim.worker_process import begin_worker, draw_on_one_thread


def run_cases(
    setup: Setup, cases: Sequence[Case], *, workers: int = 0
) -> Generator[Outcome, None, None]:
    """Run ``cases``, yielding each outcome as its episode ends, in any order.

    ``workers`` processes are spawned, never forked, since OpenGL does not survive a fork: the
    caller's main module must be importable. 0 is one per core; 1 runs here, in this process.
    After Ctrl-C no other episode starts; those that run are ended and yielded, and then it raises
    KeyboardInterrupt. VlaError for what no episode can run with, BackendError where a process
    dies.
    """
    workers = min(workers or os.cpu_count() or 1, max(1, len(cases)))
    draw_on_one_thread()
    if workers == 1:
        yield from Station(setup).run_all(cases)
        return
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context('spawn'), initializer=_begin, initargs=(setup,)
    ) as pool:
        futures = {pool.submit(_run, case) for case in cases}
        try:
            for future in as_completed(futures):
                futures.discard(future)
                yield future.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            yield from (f.result() for f in futures if not f.cancelled())
            raise
        except BrokenProcessPool as error:
            raise BackendError(
                'an evaluation process died, as it does when memory runs out or OpenGL crashes: '
                'try fewer --workers; --resume goes on where it stopped.'
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_station: Station


def _begin(setup: Setup) -> None:
    global _station
    begin_worker()
    _station = Station(setup)


def _run(case: Case) -> Outcome:
    return _station.run(case)
