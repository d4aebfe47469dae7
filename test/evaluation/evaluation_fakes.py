"""A simulator and a policy whose every number a reader can work out."""

from __future__ import annotations

import numpy as np
from fakes import FakePolicy

from vla_trt_ros.config import PolicyConfig, load_platform, load_robot
from vla_trt_ros.datatypes import JointSample, PolicyResult, StageTimes
from vla_trt_ros.evaluation.cases import Case, Outcome, Setup
from vla_trt_ros.evaluation.episode import EpisodeResult
from vla_trt_ros.evaluation.records import Conditions
from vla_trt_ros.pipeline import Pipeline
from vla_trt_ros.sim.suites import Suite

NAMES = ('hand_x', 'hand_y', 'hand_z', 'gripper')


class FakeEnv:
    """Solved after ``solved_after`` steps (never for 0); keeps what it was told. ``broken_at``
    raises at that step; ``blind_at`` gives NaN joint states there.
    """

    joint_names = NAMES

    def __init__(self, task='reach', *, solved_after=0, broken_at=-1, blind_at=-1) -> None:
        self.task, self.prompt = task, f'do {task}'
        self.solved_after, self.broken_at, self.blind_at = solved_after, broken_at, blind_at
        self.applied: list[np.ndarray] = []
        self.rendered: list[int] = []
        self.seeds: list[int] = []
        self.steps = 0
        self.closed = False

    @property
    def success(self) -> bool:
        return 0 < self.solved_after <= self.steps

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)
        self.steps = 0
        self.applied, self.rendered = [], []

    def observe(self, stamp_ns: int = 0) -> JointSample:
        x = np.nan if self.steps == self.blind_at else 0.001 * self.steps
        return JointSample(stamp_ns, stamp_ns, NAMES, np.array([x, 0.6, 0.2, 1.0]))

    def render(self) -> dict[str, np.ndarray]:
        self.rendered.append(self.steps)
        picture = np.full((8, 8, 3), self.steps % 256, np.uint8)
        picture[0, 0] = 255
        return {'base': picture, 'wrist': picture}

    def apply(self, target: np.ndarray) -> None:
        if self.steps == self.broken_at:
            raise FloatingPointError('the physics diverged')
        self.applied.append(target)
        self.steps += 1

    def hold_target(self) -> np.ndarray:
        return np.array([0.5, 0.5, 0.5, 0.5])

    def close(self) -> None:
        self.closed = True


class CountingPolicy(FakePolicy):
    """Row r of chunk c has the gripper at 0.1 c + 0.01 r and leaves the hand where it was."""

    def __init__(self) -> None:
        super().__init__()
        self.runtimes = {'vision': 'fake fp32'}
        self.closed = False

    def infer(self, observation, *, num_steps, noise=None) -> PolicyResult:
        if self.fault is not None:
            raise self.fault
        actions = np.zeros((self.horizon, 4), np.float32)
        actions[:, 3] = 0.1 * len(self.asked) + 0.01 * np.arange(self.horizon)
        self.asked.append((observation, num_steps))
        return PolicyResult(actions, StageTimes(), 3)

    def close(self) -> None:
        self.closed = True


def pipeline(policy: FakePolicy | None = None) -> Pipeline:
    return Pipeline(
        policy or CountingPolicy(),
        load_robot('metaworld'),
        load_platform('cpu'),
        PolicyConfig('pi05', 'fake'),
    )


def suite(make) -> Suite:
    """Tasks are any words; ``make(task, width, height)``."""
    return Suite(
        name='fake',
        robot='metaworld',
        default_tasks=('reach', 'push'),
        tasks_of=lambda word: (word,),
        prompts_of=lambda task: (f'do {task}', f'please {task}', f'{task} now'),
        max_steps_of=lambda task: 12,
        make=make,
        look_alike=('reach', 'push'),
    )


def setup(**changes) -> Setup:
    given = {
        'env': 'fake',
        'bundle': 'fake',
        'platforms': {'fp32': load_platform('cpu')},
        'tasks': ('reach', 'push'),
    }
    return Setup(**{**given, **changes})


def outcome(task='reach', seed=900_000, success=True, *, told='', prompts='canonical', **more):
    case = Case(task, more.pop('num_steps', 10), more.pop('precision', 'fp32'), prompts, seed)
    given = {
        'task': task,
        'seed': seed,
        'num_steps': case.num_steps,
        'prompt': f'do {told or task}',
        'success': success,
        'steps': 40 if success else 250,
        'chunks': 2,
        'seconds': 0.5,
        'inference_ms': (10.0, 30.0),
    }
    return Outcome(case, told or task, EpisodeResult(**{**given, **more}))


CONDITIONS = Conditions('metaworld', 'nano', 'f' * 64, 'a computer x 2', 2, 5, 0, 0, (224, 224))
