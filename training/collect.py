"""Processes that play episodes while the network learns, and label every frame they see.

First the teacher has the arm, more or less disturbed. As soon as the learner has published
weights, the policy has it most of the time: so the data hold the very mistakes that this policy
makes, each with what the teacher would have done there (DAgger, Ross et al. 2011).
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

POLICY = 'policy.pt'
_MOST_WAITING = 400
"""Episodes on disk that the learner has not taken yet; more, and the players wait."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one process is told."""

    folder: Path
    """Where episodes are put and the policy is found."""
    player: int
    players: int
    tasks: tuple[str, ...]
    first_seed: int


def play(job: Job) -> None:
    """Play until killed. Runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _play(job)
    except Exception:
        (job.folder / f'player-{job.player}.error').write_text(traceback.format_exc())
        raise


def _play(job: Job) -> None:
    from recipe import CAMERA_SIZE, Collection

    from vla_trt_ros.sim.demonstrations import record_episode
    from vla_trt_ros.sim.metaworld import MetaWorld

    settings = Collection()
    envs: dict[str, MetaWorld] = {}
    policy = LivePolicy(job.folder / POLICY, job.tasks)
    count = 0
    while True:
        task = job.tasks[(job.player + count) % len(job.tasks)]
        seed = job.first_seed + job.player + job.players * count
        count += 1
        random = np.random.default_rng((seed, 11))
        if task not in envs:
            envs[task] = MetaWorld(task, width=CAMERA_SIZE, height=CAMERA_SIZE)
        driven = policy.ready() and random.random() > settings.teacher_share
        levels = settings.policy_noise if driven else settings.teacher_noise
        noise = float(random.choice(levels))
        if driven:
            policy.begin(
                job.tasks.index(task),
                random,
                execute=int(random.integers(settings.execute[0], settings.execute[1] + 1)),
                late=int(random.integers(settings.late + 1)),
                num_steps=int(random.choice(settings.num_steps)),
            )
        episode = record_episode(
            envs[task],
            seed=seed,
            noise=noise,
            driver=policy.act if driven else None,
            max_steps=settings.policy_steps if driven else settings.teacher_steps,
            stride=2,
            phase=int(random.integers(2)),
        )
        if not driven and not episode.success:
            continue
        while len(os.listdir(job.folder)) > _MOST_WAITING:
            time.sleep(0.2)
        about = {'task': job.tasks.index(task), 'driven': driven, 'noise': noise, 'seed': seed}
        save_episode(job.folder / f'{job.player}-{count}.npz', episode, about)


def save_episode(path: Path, episode: Any, about: dict[str, Any]) -> None:
    """Write frames at the network's size: images uint8 [N, V, S, S, 3], state, label."""
    from recipe import NETWORK

    from vla_trt_ros.preprocess.resize import resize_with_pad

    size = NETWORK.image_size
    images = np.stack(
        [
            [resize_with_pad(frame.images[view], size, size) for view in NETWORK.views]
            for frame in episode.frames
        ]
    )
    aside = path.with_suffix('.part')
    with aside.open('wb') as file:
        np.savez(
            file,
            images=images,
            state=np.stack([frame.state for frame in episode.frames]),
            label=np.stack([frame.label for frame in episode.frames]),
            success=episode.success,
            steps=episode.steps,
            **about,
        )
    aside.rename(path)


class LivePolicy:
    """The newest published weights, run on one core."""

    def __init__(self, path: Path, tasks: tuple[str, ...]) -> None:
        self._path = path
        self._tasks = tasks
        self._stamp = 0.0

    def ready(self) -> bool:
        """Load newer weights if there are any; False as long as there never were."""
        try:
            stamp = self._path.stat().st_mtime
        except FileNotFoundError:
            return False
        if stamp != self._stamp:
            self._load()
            self._stamp = stamp
        return True

    def begin(
        self,
        task: int,
        random: np.random.Generator,
        *,
        execute: int,
        late: int,
        num_steps: int,
    ) -> None:
        """An episode of ``task``: ``execute`` rows of each chunk from row ``late`` on."""
        import torch

        self._task = torch.tensor([task])
        self._random = random
        self._execute, self._late, self._num_steps = execute, late, num_steps

    def act(self, images: dict[str, Any], state: Any) -> Any:
        """A `demonstrations.Driver`."""
        import torch
        from network import sample
        from recipe import NETWORK

        from vla_trt_ros.preprocess.resize import resize_with_pad

        size, horizon = NETWORK.image_size, NETWORK.horizon
        views = [resize_with_pad(images[view], size, size) for view in NETWORK.views]
        pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        normalized = torch.from_numpy(self._normalize(state))[None]
        tokens, mask = self._prompts.draw(self._task, normalized)
        noise = self._random.standard_normal((1, horizon, NETWORK.action_dim)).astype(np.float32)
        out = sample(
            self._model, pixels[None], tokens, mask, torch.from_numpy(noise), self._num_steps
        )
        rows = self._unnormalize(out[0, :, :4].numpy())
        rows[:, :3] += state[:3]
        rows[:, 3] = np.clip(rows[:, 3], 0.0, 1.0)
        return list(rows[self._late : self._late + self._execute].astype(np.float64))

    def _load(self) -> None:
        import torch
        from recipe import NETWORK
        from tokens import PromptTable

        from vla_trt_ros.export.pi05.model import Pi05
        from vla_trt_ros.preprocess.normalize import Normalize, Unnormalize

        torch.set_num_threads(1)
        saved = torch.load(self._path, map_location='cpu', weights_only=False)
        if self._stamp == 0.0:
            self._model = Pi05(NETWORK).eval()
            length = NETWORK.prompt_buckets[0]
            self._prompts = PromptTable(
                saved['vocabulary'], self._tasks, length, NETWORK.vocab_size
            )
        self._model.load_state_dict(saved['weights'])
        stats = saved['stats']
        self._normalize = Normalize(stats['state'], 'quantiles')
        self._unnormalize = Unnormalize(stats['actions'], 'quantiles')
