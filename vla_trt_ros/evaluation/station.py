"""Where episodes are run: environments and pipelines of one process, kept from case to case."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from vla_trt_ros.evaluation.cases import Case, Outcome, Setup
from vla_trt_ros.evaluation.episode import run_episode
from vla_trt_ros.evaluation.prompting import told
from vla_trt_ros.loading import load_pipeline
from vla_trt_ros.pipeline import Pipeline
from vla_trt_ros.sim.env import Environment
from vla_trt_ros.sim.suites import Suite, load_suite


class Station:
    """Runs the cases of ``setup``, one after another, on one thread of one process.

    ``make_pipeline`` takes a precision that ``setup.platforms`` names. Environment and pipelines
    are made when a case first needs them; `close` frees them.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        suite: Suite | None = None,
        make_pipeline: Callable[[str], Pipeline] | None = None,
    ) -> None:
        self._setup = setup
        self._suite = suite or load_suite(setup.env)
        self._make_pipeline = make_pipeline or self._load_pipeline
        self._pipelines: dict[str, Pipeline] = {}
        self._env: Environment | None = None
        self._task = ''

    def run(self, case: Case) -> Outcome:
        """One episode. A VlaError means that no episode of this kind can run."""
        suite, setup = self._suite, self._setup
        pipeline = self._pipeline(case.precision)
        env = self._environment(case.task)
        told_task, prompt = told(
            case.prompts, case.task, case.seed, tasks=setup.tasks, prompts_of=suite.prompts_of
        )

        episode = partial(
            run_episode,
            env,
            pipeline,
            seed=case.seed,
            num_steps=case.num_steps,
            prompt=prompt,
            max_steps=setup.max_steps or suite.max_steps_of(case.task),
            execute_rows=setup.execute_rows,
            delay_rows=setup.delay_rows,
        )
        if self._filmed(case):
            from vla_trt_ros.evaluation.film import Film

            with Film(_film_path(setup, case), pipeline, prompt) as film:
                result = episode(watch=film.watch)
                film.end(env, result, keep=setup.film != 'failures' or not result.success)
        else:
            result = episode()
        if result.error:
            # Whatever broke it may be broken still.
            self._close_environment()
        return Outcome(case, told_task, replace(result, task=case.task))

    def run_all(self, cases: Iterable[Case]) -> Generator[Outcome, None, None]:
        """The outcomes of ``cases``, as they come; everything is freed behind the last."""
        try:
            for case in cases:
                yield self.run(case)
        finally:
            self.close()

    def close(self) -> None:
        """Free environment and engines. A second call does nothing."""
        self._close_environment()
        for pipeline in self._pipelines.values():
            pipeline.policy.close()
        self._pipelines.clear()

    def _pipeline(self, precision: str) -> Pipeline:
        if precision not in self._pipelines:
            self._pipelines[precision] = self._make_pipeline(precision)
        return self._pipelines[precision]

    def _load_pipeline(self, precision: str) -> Pipeline:
        return load_pipeline(
            robot=self._suite.robot,
            # As many processes as cores: more threads in each would only be in the way.
            platform=replace(self._setup.platforms[precision], threads=1),
            policy=self._suite.policy,
            bundle=self._setup.bundle,
        )

    def _environment(self, task: str) -> Environment:
        if self._env is None or self._task != task:
            self._close_environment()
            self._env = self._suite.make(task, *self._setup.image_size)
            self._task = task
        return self._env

    def _close_environment(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            with suppress(Exception):
                env.close()

    def _filmed(self, case: Case) -> bool:
        setup = self._setup
        return bool(setup.video) and (setup.film != 'first' or case.seed == setup.first_seed)


def _film_path(setup: Setup, case: Case) -> Path:
    words = (case.task, case.precision, f'{case.num_steps}steps', case.prompts, str(case.seed))
    return Path(setup.video) / ('_'.join(words).replace('/', '-') + '.mp4')
