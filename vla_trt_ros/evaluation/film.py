"""A film of one episode: both cameras at the simulator's pace, and what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from vla_trt_ros.datatypes import Uint8Array
from vla_trt_ros.evaluation.episode import EpisodeResult
from vla_trt_ros.pipeline import Pipeline
from vla_trt_ros.sim.env import Environment
from vla_trt_ros.viz.recorder import Recorder

_LINGER = 1.0  # seconds that the last picture stays


class Film:
    """Writes ``path`` (.mp4); a second of film is a second of the robot's clock."""

    def __init__(self, path: Path, pipeline: Pipeline, prompt: str) -> None:
        self._recorder = Recorder(path, pipeline.policy.views)
        self._step = pipeline.robot.step_ns / 1e9
        self._prompt = prompt
        self._keep = True

    def watch(self, env: Environment, pictures: Mapping[str, Uint8Array] | None) -> None:
        """Take a frame where one is due; draws it where the policy had none drawn."""
        now = env.steps * self._step
        if self._recorder.wants(now):
            self._recorder.add(now, pictures or env.render(), f'{self._prompt} | {env.steps}')

    def end(self, env: Environment, result: EpisodeResult, *, keep: bool = True) -> None:
        """Show the last picture with the outcome; ``keep`` False throws the film away."""
        self._keep = keep
        if not keep or result.error:
            return
        word = 'solved' if result.success else 'not solved'
        caption = f'{self._prompt} | {word}, {result.steps} steps'
        pictures = env.render()
        for moment in (0.0, _LINGER):
            self._recorder.add((env.steps + 1) * self._step + moment, pictures, caption)

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._recorder.__exit__(kind, error, trace)
        if not self._keep:
            self._recorder.path.unlink(missing_ok=True)
