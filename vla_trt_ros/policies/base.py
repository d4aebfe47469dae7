"""What the pipeline knows of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from vla_trt_ros.bundle import Bundle
from vla_trt_ros.datatypes import CameraFrame, Float32Array, Observation, PolicyResult
from vla_trt_ros.errors import ConfigError


class Pending(Protocol):
    """A chunk that is being made (`Policy.submit`)."""

    def result(self) -> PolicyResult:
        """Wait until it is made; errors as `Policy.infer`. Once, from any one thread: its place
        is free then, also where it failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Made:
    """The `Pending` of a policy that is done when `Policy.submit` returns."""

    made: PolicyResult

    def result(self) -> PolicyResult:
        """What was made."""
        return self.made


class Policy(Protocol):
    """A loaded policy: every engine in memory, every buffer allocated.

    Used by one thread at a time, but for the methods that say otherwise.
    """

    @property
    def bundle(self) -> Bundle:
        """Where it came from: name, layout, hashes."""
        ...

    @property
    def views(self) -> tuple[str, ...]:
        """Camera names it looks at, in the network's order."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the network's input, pixels."""
        ...

    @property
    def horizon(self) -> int:
        """Rows of a chunk, H."""
        ...

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape of the flow-matching noise, [H, A]; A may be wider than the robot's actions."""
        ...

    @property
    def num_steps_available(self) -> tuple[int, ...]:
        """Step counts that `infer` takes."""
        ...

    @property
    def prompt_buckets(self) -> tuple[int, ...]:
        """Prompt lengths, in tokens, that engines exist for."""
        ...

    @property
    def runtimes(self) -> Mapping[str, str]:
        """Stage to what runs it, for people: {'vision': 'onnxruntime fp32', ...}."""
        ...

    @property
    def transport(self) -> str:
        """How pixels reach the engines: 'host', 'pinned' (one copy to the GPU from page-locked
        memory) or 'mapped' (the GPU reads that memory).
        """
        ...

    @property
    def places(self) -> int:
        """Chunks that can be in the making at once: 1, or 2 where they overlap."""
        ...

    def prepare_frame(self, view: str, frame: CameraFrame) -> CameraFrame:
        """``frame`` of ``view`` where `infer` reads it: a copy to the GPU has begun, if there is
        one. For the thread that takes camera messages, also while another one is in `infer`.

        BadImage for a frame that cannot be used, BackendError where the GPU does not take it.
        """
        ...

    def infer(
        self, observation: Observation, *, num_steps: int, noise: Float32Array | None = None
    ) -> PolicyResult:
        """One chunk for one observation.

        A view without a frame in ``observation`` is masked. ``noise`` is standard normal float32
        of `noise_shape`, drawn from the policy's own seeded generator if None. The result's
        actions are float32 [H, action_dim], a copy the caller owns, in the robot's units, columns
        and kinds of the bundle's layout.

        Raises BadImage, BadState or BadPrompt for an input that cannot be used (BadImage also
        where no view has a frame), and ConfigError for a step count that is not in
        `num_steps_available`; the policy stays usable. BackendError where an engine fails: the
        next call may do; after its kind DeviceLost none will, until the process starts anew.
        """
        ...

    def submit(
        self, observation: Observation, *, num_steps: int, noise: Float32Array | None = None
    ) -> Pending:
        """Begin what `infer` does; its errors come here for inputs, and from the result for
        engines. BackendError where all `places` are taken, by results that nobody asked for yet.

        Chunks are made in the order of these calls; one that fails takes no other with it.
        """
        ...

    def wait_turn(self) -> None:
        """Until what is submitted next would begin at once, if a place is free: newer frames may
        arrive meanwhile. BackendError where the GPU failed.
        """
        ...

    def check_prompt(self, prompt: str) -> int:
        """Tokens of ``prompt`` with an average state; BadPrompt if it cannot be used.

        May be called from any thread, also while another one is in `infer`.
        """
        ...

    def warm_up(self) -> None:
        """Run every engine once, so that the first tick is like the others."""
        ...

    def reseed(self, seed: int) -> None:
        """Start the noise generator again from ``seed``."""
        ...

    def close(self) -> None:
        """Give engines back; a second call does nothing."""
        ...


def check_num_steps(num_steps: int, available: tuple[int, ...]) -> None:
    """ConfigError unless ``num_steps`` is one of ``available``."""
    if num_steps not in available:
        raise ConfigError(
            f'num_steps {num_steps} is not in this bundle, which has '
            f'{", ".join(map(str, available))}; choose one, or export with --steps {num_steps}.'
        )
