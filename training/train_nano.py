"""Train the nano policy on Meta-World: flow matching on what the teacher would have done.

One machine with one GPU. Players (processes on the CPU cores, rendering through EGL) make episodes
while the network learns from them; after a few minutes the network itself plays most of them.

  MUJOCO_GL=egl python training/train_nano.py --out runs/nano --minutes 24
  python training/train_nano.py --out runs/nano --resume --minutes 10

Writes OUT/checkpoint (for `vla-trt export --checkpoint`), OUT/log.jsonl and OUT/loss.png.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from collect import POLICY, Job, play
from loss_plot import plot
from network import clear_padding, draw_times, flow_loss, fresh_model
from recipe import NETWORK, ROBOT, Recipe
from store import Augmentation, FrameStore, relative
from tokens import PromptTable

from vla_trt_ros.export.pi05.checkpoint_folder import write_checkpoint
from vla_trt_ros.export.tokenizer import train_vocabulary
from vla_trt_ros.sim.prompts import BENCHMARK_TASKS, PROMPTS
from vla_trt_ros.sim.seeds import TRAINING_SEEDS

_PUBLISH_EVERY = 20.0
"""Seconds between weights for the players."""
_LOG_EVERY = 15.0
_WINDOW = 40
"""Latest episodes of a task that its success is counted over."""


def main() -> int:
    """Start the players and learn until the minutes are over."""
    args = _arguments()
    recipe = Recipe(batch=args.batch, capacity=args.capacity, start_frames=args.start_frames)
    args.out.mkdir(parents=True, exist_ok=True)
    args.inbox.mkdir(parents=True, exist_ok=True)
    for old in (*args.inbox.glob('*.npz'), *args.inbox.glob('*.part'), args.inbox / POLICY):
        old.unlink(missing_ok=True)
    learner = Learner(args, recipe)
    if args.checkpoint_only:
        learner.save_checkpoint()
        return 0
    context = multiprocessing.get_context('spawn')
    span = len(TRAINING_SEEDS) // 4
    first = TRAINING_SEEDS.start + (learner.run % 4) * span
    jobs = [Job(args.inbox, i, args.players, BENCHMARK_TASKS, first) for i in range(args.players)]
    players = [context.Process(target=play, args=(job,), daemon=True) for job in jobs]
    for player in players:
        player.start()
    try:
        learner.learn()
    finally:
        for player in players:
            player.kill()
    return 0


class Learner:
    """The network, its optimiser, and the frames it learns from."""

    def __init__(self, args: argparse.Namespace, recipe: Recipe) -> None:
        self.args, self.recipe = args, recipe
        self.device = torch.device(args.device)
        torch.set_float32_matmul_precision('high')
        size, rows = NETWORK.image_size, NETWORK.horizon
        self.store = FrameStore(recipe.capacity, len(NETWORK.views), size, rows, self.device)
        self.augment = Augmentation(recipe)
        self.vocabulary = _vocabulary(args.tokenizer)
        self.stats: Any = None
        self.updates = self.run = 0
        saved = self._saved()
        if saved:
            self.vocabulary, self.stats = saved['vocabulary'], saved['stats']
            self.updates, self.run = saved['updates'], saved['run'] + 1
        self.prompts = PromptTable(
            self.vocabulary, BENCHMARK_TASKS, NETWORK.prompt_buckets[0], NETWORK.vocab_size
        )
        for row, task in enumerate(BENCHMARK_TASKS):
            self.prompts.check(task, row, np.array([-1.2, -0.31, 0.5, 1.3], np.float32))
        self.model = fresh_model(NETWORK, self.prompts.number_tokens, args.seed).to(self.device)
        if saved:
            self.model.load_state_dict(saved['weights'])
        self.prompts.to(self.device)
        self.live = self.model.state_dict()  # views: they follow the optimiser
        self.average = {k: v.detach().clone() for k, v in self.live.items()}
        self.inbox: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=64)
        self.recent: dict[tuple[int, bool], list[bool]] = {}
        self.episodes = 0
        self.log_file = (args.out / 'log.jsonl').open('a' if saved else 'w', encoding='utf-8')

    def learn(self) -> None:
        """Until the minutes are over."""
        threading.Thread(target=self._receive, daemon=True).start()
        began = time.monotonic()
        self._wait_for(self.recipe.start_frames)
        if self.stats is None:
            self.stats = self.store.statistics()
        self._say({'event': 'statistics', **{k: _rounded(v) for k, v in self.stats.items()}})
        self._maps()
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        other = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [
            {'params': decayed, 'weight_decay': self.recipe.weight_decay},
            {'params': other, 'weight_decay': 0.0},
        ]
        fused = self.device.type == 'cuda'
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=fused)
        loss_of = torch.compile(flow_loss, dynamic=False) if self.args.compile else flow_loss
        start, end = time.monotonic(), began + 60.0 * self.args.minutes
        published = logged = start
        losses: list[torch.Tensor] = []
        while (now := time.monotonic()) < end:
            self._take()
            rate = self._rate((now - start) / (end - start))
            for group in optimizer.param_groups:
                group['lr'] = rate
            loss = self._update(loss_of, optimizer)
            losses.append(loss)
            self.updates += 1
            if now - published > _PUBLISH_EVERY and self.updates > self.args.publish_from:
                self._publish()
                published = now
            if now - logged > _LOG_EVERY:
                self._log(now - began, rate, losses, now - logged)
                losses, logged = [], now
            if self.updates % 2000 == 0:
                self._save()
        self._save()
        self._say({'event': 'done', 'minutes': (time.monotonic() - began) / 60.0})
        plot(self.args.out, BENCHMARK_TASKS, every=_LOG_EVERY, window=_WINDOW)

    def _update(self, loss_of: Any, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        recipe = self.recipe
        batch = self.store.draw(recipe.batch)
        with torch.no_grad():
            pixels = self.augment(batch.images)
            state = (batch.state - self.state_offset) / self.state_scale
            state = state + torch.randn_like(state) * recipe.state_noise
            tokens, mask = self.prompts.draw(batch.task, state)
            actions = relative(batch.label, batch.state)
            actions = (actions - self.action_offset) / self.action_scale
            count = recipe.batch * recipe.noises
            noise = torch.randn(count, *actions.shape[1:], device=self.device)
            times = draw_times(count, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == 'cuda'):
            loss: torch.Tensor = loss_of(self.model, pixels, tokens, mask, actions, noise, times)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(recipe.ema, (self.updates + 1) / (self.updates + 10))
        torch._foreach_lerp_(list(self.average.values()), list(self.live.values()), 1 - decay)
        return loss.detach()

    def _rate(self, progress: float) -> float:
        r = self.recipe
        if progress < r.warmup:
            return r.peak_rate * progress / r.warmup
        if progress < r.decay_from:
            return r.peak_rate
        along = min(1.0, (progress - r.decay_from) / (1.0 - r.decay_from))
        return r.last_rate + (r.peak_rate - r.last_rate) * 0.5 * (1.0 + math.cos(math.pi * along))

    def _receive(self) -> None:
        while True:
            for path in sorted(self.args.inbox.glob('*.npz'), key=lambda p: p.stat().st_mtime):
                with np.load(path) as file:
                    episode = {name: file[name] for name in file.files}
                path.unlink()
                self.inbox.put(episode)
            time.sleep(0.05)

    def _take(self, most: int = 4) -> None:
        for _ in range(most):
            try:
                episode = self.inbox.get_nowait()
            except queue.Empty:
                return
            self.store.add(episode)
            self.episodes += 1
            key = int(episode['task']), bool(episode['driven'])
            self.recent[key] = [*self.recent.get(key, []), bool(episode['success'])][-_WINDOW:]

    def _wait_for(self, frames: int) -> None:
        told = time.monotonic()
        while self.store.count < frames:
            self._take()
            time.sleep(0.01)
            for error in self.args.inbox.glob('*.error'):
                sys.exit(f'a player died:\n{error.read_text()}')
            if time.monotonic() - told > 10.0:
                told = time.monotonic()
                print(f'{self.store.count} of {frames} frames to begin with', flush=True)

    def _maps(self) -> None:
        def on_device(values: Any) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=self.device)

        self.state_offset, self.state_scale = map(
            on_device, self.stats['state'].linear('quantiles')
        )
        self.action_offset, self.action_scale = map(
            on_device, self.stats['actions'].linear('quantiles')
        )

    def _weights(self) -> dict[str, torch.Tensor]:
        weights = {k: v.detach().float().cpu().clone() for k, v in self.average.items()}
        clear_padding(weights, columns=4)
        return weights

    def _publish(self) -> None:
        saved = {'weights': self._weights(), 'stats': self.stats, 'vocabulary': self.vocabulary}
        aside = self.args.inbox / f'{POLICY}.new'
        torch.save(saved, aside)
        aside.rename(self.args.inbox / POLICY)

    def save_checkpoint(self) -> dict[str, torch.Tensor]:
        """Write OUT/checkpoint; the weights in it."""
        weights = self._weights()
        write_checkpoint(
            self.args.out / 'checkpoint',
            NETWORK,
            weights,
            robot=ROBOT,
            norm_stats=self.stats,
            vocabulary=self.vocabulary,
        )
        return weights

    def _save(self) -> None:
        weights = self.save_checkpoint()
        saved = {
            # Half precision is what the bundle will hold, and enough to go on from.
            'weights': {k: v.half() for k, v in weights.items()},
            'stats': self.stats,
            'vocabulary': self.vocabulary,
            'updates': self.updates,
            'run': self.run,
        }
        aside = self.args.out / 'state.pt.part'
        torch.save(saved, aside)
        aside.rename(self.args.out / 'state.pt')

    def _saved(self) -> Any:
        path = self.args.out / 'state.pt'
        if not (self.args.resume or self.args.checkpoint_only):
            return None
        if not path.is_file():
            sys.exit(f'--resume: {path} is not there; leave the option out to begin.')
        return torch.load(path, map_location='cpu', weights_only=False)

    def _log(self, elapsed: float, rate: float, losses: list[torch.Tensor], span: float) -> None:
        record: dict[str, Any] = {
            'seconds': round(elapsed, 1),
            'updates': self.updates,
            'updates_per_s': round(len(losses) / span, 1),
            'loss': round(float(torch.stack(losses).mean()), 5),
            'rate': rate,
            'frames': self.store.count,
            'frames_added': self.store.added,
            'episodes': self.episodes,
            'run': self.run,
        }
        for driven, name in ((True, 'policy_success'), (False, 'teacher_success')):
            counts = {
                task: [sum(recent), len(recent)]
                for i, task in enumerate(BENCHMARK_TASKS)
                if (recent := self.recent.get((i, driven)))
            }
            if counts:
                record[name] = counts
        self._say(record)

    def _say(self, record: dict[str, Any]) -> None:
        line = json.dumps(record)
        print(line, flush=True)
        self.log_file.write(line + '\n')
        self.log_file.flush()


def _vocabulary(path: Path | None) -> bytes:
    if path:
        return path.read_bytes()
    phrases = (text for texts in PROMPTS.values() for text in texts)
    return train_vocabulary(phrases, NETWORK.vocab_size)


def _rounded(stats: Any) -> dict[str, list[float]]:
    return {'q01': np.round(stats.q01, 4).tolist(), 'q99': np.round(stats.q99, 4).tolist()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR')
    parser.add_argument('--minutes', type=float, default=24.0, help='of all, data included')
    parser.add_argument('--players', type=int, default=15, help='processes that play episodes')
    parser.add_argument(
        '--inbox', type=Path, default=Path('/dev/shm/nano'), help='episodes pass through here'
    )
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--batch', type=int, default=Recipe.batch)
    parser.add_argument('--capacity', type=int, default=Recipe.capacity, help='frames kept')
    parser.add_argument('--start-frames', type=int, default=Recipe.start_frames)
    parser.add_argument(
        '--publish-from', type=int, default=1500, help='updates before the policy plays'
    )
    parser.add_argument(
        '--tokenizer', type=Path, metavar='FILE', help='vocabulary (default: made of the prompts)'
    )
    parser.add_argument('--resume', action='store_true', help='go on from OUT/state.pt')
    parser.add_argument(
        '--checkpoint-only',
        action='store_true',
        help='OUT/checkpoint from OUT/state.pt; no training',
    )
    parser.add_argument('--no-compile', dest='compile', action='store_false')
    return parser.parse_args()


if __name__ == '__main__':
    sys.exit(main())
