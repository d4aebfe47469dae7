"""Demonstrations of many scenes in several processes, into one data set."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vla_trt_ros.errors import BackendError, BadAction, VlaError
from vla_trt_ros.sim.dataset.layout import FILE_MB, Layout
from vla_trt_ros.sim.dataset.staging import Staged, Take, stage
from vla_trt_ros.sim.dataset.writer import DatasetWriter
from vla_trt_ros.sim.worker_process import begin_worker

if TYPE_CHECKING:
    from vla_trt_ros.sim.demonstrations import Episode
    from vla_trt_ros.sim.metaworld import MetaWorld

_MOST_SCENES = 8  # simulations that a process keeps: each holds a model and an OpenGL context


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to record."""

    scene: str
    seed: int
    noise: float
    """Level of the disturbance of what is executed."""

    @property
    def key(self) -> tuple[str, int]:
        """What a data set has once at most."""
        return self.scene, self.seed


@dataclass(frozen=True, slots=True)
class Settings:
    """What all episodes of a recording share."""

    root: Path
    shape: Layout
    max_steps: int
    """Control steps after which an episode counts as failed."""
    stride: int
    """Control steps from one frame to the next."""
    levels: int = 1
    """How many noise levels are in use."""

    def phase(self, seed: int) -> int:
        """First step with a frame: 0 to ``stride`` - 1, evenly over the seeds of each level."""
        return seed // self.levels % self.stride


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: with a staged episode, or with the reason why there is none."""

    job: Job
    staged: Staged | None
    reason: str = ''


def plan(scenes: Sequence[str], seeds: Iterable[int], noises: Sequence[float]) -> list[Job]:
    """Every scene on every seed, the scenes in turn; a seed has one of the noise levels."""
    return [
        Job(scene, seed, noises[seed % len(noises)])
        for seed in seeds
        for scene in dict.fromkeys(scenes)
    ]


def missing(jobs: Iterable[Job], writer: DatasetWriter) -> list[Job]:
    """Those that the data set neither holds nor knows to have failed."""
    known = writer.recorded | writer.failed.keys()
    return [job for job in jobs if job.key not in known]


def record(
    writer: DatasetWriter, settings: Settings, jobs: Sequence[Job], *, workers: int = 0
) -> Generator[Outcome, None, None]:
    """Do the ``jobs``, yielding each outcome as its episode ends, in any order; the data set gets
    them in the order of ``jobs``.

    ``workers`` processes are spawned; 0 is one per core, 1 runs here. After Ctrl-C no other
    episode starts; those that run are ended, and KeyboardInterrupt is raised: what is not in the
    data set by then is staged, and the next `DatasetWriter` takes it in. VlaError where the disk
    is full, BackendError where a process dies.
    """
    queue = _InOrder(writer, jobs)
    try:
        for outcome in _outcomes(settings, jobs, workers):
            queue.put(outcome)
            yield outcome
        queue.flush()
    except OSError as error:
        raise VlaError(
            f'{settings.root}: {error.strerror or error}. What was recorded so far is safe: make '
            'room, and the same command goes on.'
        ) from error


class _InOrder:
    """Outcomes as they come, episodes into the writer as they were planned."""

    def __init__(self, writer: DatasetWriter, jobs: Sequence[Job]) -> None:
        self._writer = writer
        self._waiting = list(reversed(jobs))
        self._outcomes: dict[Job, Outcome] = {}
        self._ready: list[Staged] = []
        self._bytes = 0

    def put(self, outcome: Outcome) -> None:
        if outcome.staged is None:
            self._writer.fail(outcome.job.scene, outcome.job.seed, outcome.reason)
        self._outcomes[outcome.job] = outcome
        while self._waiting and self._waiting[-1] in self._outcomes:
            episode = self._outcomes.pop(self._waiting.pop()).staged
            if episode is not None:
                self._ready.append(episode)
                self._bytes += episode.bytes
                if self._bytes >= FILE_MB << 20:
                    self.flush()

    def flush(self) -> None:
        self._writer.add(self._ready)
        self._ready, self._bytes = [], 0


def _outcomes(settings: Settings, jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    workers = min(workers or os.cpu_count() or 1, max(1, len(jobs)))
    if workers == 1:
        recorder = _Recorder(settings)
        try:
            yield from map(recorder.run, jobs)
        finally:
            recorder.close()
        return
    spawn = multiprocessing.get_context('spawn')  # OpenGL does not survive a fork
    with ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(settings,)) as pool:
        futures = [pool.submit(_run, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise BackendError(
                'a recording process died, as it does when memory runs out or OpenGL crashes: '
                'try fewer --workers; the same command goes on where it stopped.'
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Recorder:
    """Records in one process, with a simulation of each scene at hand."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._environments: dict[str, MetaWorld] = {}

    def run(self, job: Job) -> Outcome:
        from vla_trt_ros.sim.demonstrations import record_episode

        settings = self._settings
        try:
            episode = record_episode(
                self._environment(job.scene),
                seed=job.seed,
                noise=job.noise,
                max_steps=settings.max_steps,
                stride=settings.stride,
                phase=settings.phase(job.seed),
            )
        except BadAction as error:
            return Outcome(job, None, str(error))
        if not episode.success:
            return Outcome(job, None, f'not solved in {episode.steps} steps')
        return Outcome(job, stage(settings.root, settings.shape, as_take(episode, job.noise)))

    def close(self) -> None:
        for environment in self._environments.values():
            environment.close()

    def _environment(self, scene: str) -> MetaWorld:
        from vla_trt_ros.sim.metaworld import MetaWorld

        if scene not in self._environments:
            if len(self._environments) == _MOST_SCENES:
                self._environments.pop(next(iter(self._environments))).close()
            shape = self._settings.shape
            self._environments[scene] = MetaWorld(scene, width=shape.width, height=shape.height)
        return self._environments[scene]


def as_take(episode: Episode, noise: float) -> Take:
    """An episode with its frames stacked; the action is row 0 of the label."""
    frames = episode.frames
    labels = np.stack([frame.label for frame in frames])
    return Take(
        scene=episode.task,
        seed=episode.seed,
        noise=noise,
        prompt=episode.prompt,
        images={
            view: np.stack([frame.images[view] for frame in frames]) for view in frames[0].images
        },
        state=np.stack([frame.state for frame in frames]),
        action=labels[:, 0],
        expert_chunk=labels,
        executed=np.stack([frame.executed for frame in frames]),
    )


_recorder: _Recorder


def _begin(settings: Settings) -> None:
    global _recorder
    begin_worker()
    _recorder = _Recorder(settings)


def _run(job: Job) -> Outcome:
    return _recorder.run(job)
