"""Pi0.5 at run time: one observation in, one chunk out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from vla_trt_ros.backends.base import Array
from vla_trt_ros.bundle import Bundle
from vla_trt_ros.config import STAGES, PlatformConfig
from vla_trt_ros.datatypes import (
    CameraFrame,
    Float32Array,
    Observation,
    PolicyResult,
)
from vla_trt_ros.errors import BadImage, BadState, BundleError, ConfigError
from vla_trt_ros.policies.base import check_num_steps
from vla_trt_ros.policies.pi05.engines import load_engines, read_config
from vla_trt_ros.policies.pi05.gpu_runner import GpuRunner
from vla_trt_ros.policies.pi05.inputs import ImageInput, write_prompt
from vla_trt_ros.policies.pi05.noise import Noise
from vla_trt_ros.policies.pi05.runner import HostRunner, Runner, Running
from vla_trt_ros.preprocess.normalize import Normalize, Unnormalize, load_norm_stats
from vla_trt_ros.preprocess.tokenize import Prompt, Tokenizer


class Pi05Policy:
    """All engines of a bundle, loaded and bound; see policies/base.py for the contract."""

    def __init__(
        self,
        bundle: Bundle,
        platform: PlatformConfig,
        *,
        seed: int = 0,
        overlap: bool = False,
    ) -> None:
        config = read_config(bundle)
        layout = bundle.layout
        self._state_dim, self._action_dim = len(layout.state), len(layout.actions)
        if max(self._state_dim, self._action_dim) > config.action_dim:
            raise BundleError(
                f'bundle {bundle.name!r}: {self._state_dim} state and {self._action_dim} action '
                f'entries do not fit the network, which has {config.action_dim}.'
            )
        manifest = bundle.manifest
        stats = load_norm_stats(
            bundle.file(manifest.norm_stats),
            {'state': self._state_dim, 'actions': self._action_dim},
        )
        self.bundle = bundle
        self.config = config
        self._platform = platform
        self._normalize = Normalize(stats['state'], manifest.normalization)
        self._unnormalize = Unnormalize(stats['actions'], manifest.normalization)
        self._tokenizer = Tokenizer(
            bundle.file(manifest.tokenizer), config.prompt_buckets, config.vocab_size
        )
        self._noise = Noise(self.noise_shape, seed)
        with ExitStack() as stack:
            self._engines = load_engines(bundle, config, platform, stack, overlap=overlap)
            self._runner: Runner
            if self._engines.on_gpu:
                self._runner = GpuRunner(config.views, self._engines, stack)
            else:
                self._runner = HostRunner(config.views, self._engines)
            self._stack = stack.pop_all()

    def prepare_frame(self, view: str, frame: CameraFrame) -> CameraFrame:
        """``frame`` where the runner reads it (policies/base.py)."""
        return self._runner.prepare(view, frame)

    def infer(
        self, observation: Observation, *, num_steps: int, noise: Float32Array | None = None
    ) -> PolicyResult:
        """One chunk for one observation (policies/base.py)."""
        return self.submit(observation, num_steps=num_steps, noise=noise).result()

    def submit(
        self, observation: Observation, *, num_steps: int, noise: Float32Array | None = None
    ) -> Pi05Pending:
        """Begin one chunk (policies/base.py)."""
        check_num_steps(num_steps, self.num_steps_available)
        begin = perf_counter()
        if not any(view in observation.frames for view in self.views):
            raise BadImage(f'no view has a frame: the network looks at {", ".join(self.views)}.')
        prompt = self._tokenize(observation.prompt, observation.state)
        drawn = self._chosen_noise(noise)
        tokenize_ms = (perf_counter() - begin) * 1e3
        running = self._runner.submit(observation.frames, prompt, num_steps, drawn)
        if noise is None:
            self._noise.draw_ahead()  # while a GPU works
        return Pi05Pending(running, self._to_robot, tokenize_ms, len(prompt.tokens))

    def wait_turn(self) -> None:
        """Until the next chunk would begin at once (policies/base.py)."""
        self._runner.wait_turn()

    def network_inputs(
        self, observation: Observation, noise: Float32Array | None = None
    ) -> dict[str, Array]:
        """What `infer` would hand to the engines, which do not run: pixels, tokens, prefix_mask
        and noise, as in spec.py, made on the processor. Errors as in `infer`.
        """
        prompt = self._tokenize(observation.prompt, observation.state)
        config = self.config
        size, bucket = config.image_size, prompt.bucket
        pixels = np.empty((len(config.views), 3, size, size), np.float32)
        tokens = np.empty((1, bucket), np.int64)
        mask = np.empty((1, config.image_tokens + bucket), np.bool_)
        there = ImageInput(config.views, pixels).write(observation.frames)
        write_prompt(prompt, there, tokens[0], mask[0])
        drawn = np.array(self._chosen_noise(noise)[None], np.float32)
        return {'pixels': pixels, 'tokens': tokens, 'prefix_mask': mask, 'noise': drawn}

    def check_prompt(self, prompt: str) -> int:
        """Tokens of ``prompt`` with a state in the middle of its range. From any thread."""
        middle = self._prompt_state(np.zeros(self._state_dim, np.float32))
        return len(self._tokenizer.encode(prompt, middle).tokens)

    def warm_up(self) -> None:
        """Run every engine once on black images."""
        self._runner.warm_up()

    def reseed(self, seed: int) -> None:
        """Start the noise generator again from ``seed``."""
        self._noise.reseed(seed)

    def close(self) -> None:
        """Close the engines; a second call does nothing."""
        self._stack.close()

    @property
    def views(self) -> tuple[str, ...]:
        """Camera names, in the network's order."""
        return self.config.views

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the network's input, pixels."""
        return self.config.image_size, self.config.image_size

    @property
    def horizon(self) -> int:
        """Rows of a chunk."""
        return self.config.horizon

    @property
    def noise_shape(self) -> tuple[int, int]:
        """[H, A]."""
        return self.config.horizon, self.config.action_dim

    @property
    def num_steps_available(self) -> tuple[int, ...]:
        """Step counts that engines exist for."""
        return self.config.num_steps

    @property
    def prompt_buckets(self) -> tuple[int, ...]:
        """Prompt lengths that engines exist for, tokens."""
        return self.config.prompt_buckets

    @property
    def runtimes(self) -> Mapping[str, str]:
        """Stage to backend and precision."""
        choices = {stage: self._platform.stage(stage) for stage in STAGES}
        return {stage: f'{c.backend} {c.precision}' for stage, c in choices.items()}

    @property
    def places(self) -> int:
        """Chunks in the making at once (policies/base.py)."""
        return self._runner.places

    @property
    def transport(self) -> str:
        """How pixels reach the engines (policies/base.py)."""
        return self._runner.transport

    def _tokenize(self, prompt: str, state: Float32Array) -> Prompt:
        if state.shape != (self._state_dim,) or not np.isfinite(state).all():
            raise BadState(
                f'state {state.tolist()} must be {self._state_dim} finite numbers: '
                f'{", ".join(self.bundle.layout.state)}.'
            )
        return self._tokenizer.encode(prompt, self._prompt_state(self._normalize(state)))

    def _prompt_state(self, normalized: Float32Array) -> Float32Array | None:
        """What of the state goes into the prompt."""
        if self.config.prompt_state == 'none':
            return None
        if self.config.prompt_state == 'padded':
            return np.pad(normalized, (0, self.config.action_dim - normalized.size))
        return normalized

    def _to_robot(self, actions: Float32Array) -> Float32Array:
        return self._unnormalize(actions[:, : self._action_dim])

    def _chosen_noise(self, noise: Float32Array | None) -> Float32Array:
        if noise is None:
            return self._noise.take()
        if noise.shape != self.noise_shape:
            raise ConfigError(
                f'noise has shape {list(noise.shape)}, this policy draws {list(self.noise_shape)}.'
            )
        return noise


@dataclass(frozen=True, slots=True)
class Pi05Pending:
    """A chunk that is being made (policies/base.py)."""

    running: Running
    to_robot: Callable[[Float32Array], Float32Array]
    """Normalised actions [H, A] to the robot's [H, action_dim]."""
    tokenize_ms: float
    prompt_tokens: int

    def result(self) -> PolicyResult:
        """Wait for it, and bring it into the robot's units (policies/base.py)."""
        ran = self.running.finish()
        done = perf_counter()
        actions = self.to_robot(ran.actions)
        times = replace(
            ran.times,
            preprocess_ms=ran.times.preprocess_ms + self.tokenize_ms,
            postprocess_ms=(perf_counter() - done) * 1e3,
        )
        return PolicyResult(
            actions,
            times,
            self.prompt_tokens,
            ran.uploads,
            ran.upload_bytes,
            ran.device_memory_mib,
        )
