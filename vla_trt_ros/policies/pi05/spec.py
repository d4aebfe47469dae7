"""Sizes of a Pi0.5 network, and the tensors at every stage boundary.

One observation runs through three stages, each with static shapes:

    vision    pixels                          -> image_tokens
    prefix    image_tokens, tokens, mask      -> keys, values      one engine per prompt bucket
    denoise   noise, keys, values, mask       -> actions           one per bucket and step count

V views of T tokens, P prompt tokens, S = V * T + P prefix tokens, L layers, KV heads of width D,
horizon H, latent action width A. The leading 1 is the batch. Keys and values are written once by
the prefix and read by every step; the suffix is never appended to them in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vla_trt_ros.config import NUM_STEPS
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import ConfigError

PromptState = Literal['none', 'real', 'padded']


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """SigLIP vision tower."""

    width: int
    depth: int
    heads: int
    mlp: int

    def __post_init__(self) -> None:
        _positive(self, 'width', 'depth', 'heads', 'mlp')
        if self.width % self.heads:
            raise ConfigError(f'width {self.width} is not a multiple of heads {self.heads}.')


@dataclass(frozen=True, slots=True)
class PrefixConfig:
    """Gemma over image and prompt tokens. Depth, heads and head_dim are the expert's too."""

    width: int
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int

    def __post_init__(self) -> None:
        _positive(self, 'width', 'depth', 'heads', 'kv_heads', 'head_dim', 'mlp')
        if self.heads % self.kv_heads:
            raise ConfigError(f'heads {self.heads} is not a multiple of kv_heads {self.kv_heads}.')
        if self.head_dim % 2:
            raise ConfigError(f'head_dim {self.head_dim} is odd; rotary embedding pairs it up.')


@dataclass(frozen=True, slots=True)
class ExpertConfig:
    """Action expert: its own width and MLP, the prefix's depth and heads."""

    width: int
    mlp: int

    def __post_init__(self) -> None:
        _positive(self, 'width', 'mlp')
        if self.width % 2:
            raise ConfigError(f'width {self.width} is odd; the time embedding halves it.')


@dataclass(frozen=True, slots=True)
class Pi05Config:
    """One network. The same dataclass is read from a bundle's manifest."""

    image_size: int
    """Height and width of a view, pixels."""
    patch: int
    views: tuple[str, ...]
    """Camera names, in the order that the network was trained with."""
    vision: VisionConfig
    prefix: PrefixConfig
    expert: ExpertConfig
    vocab_size: int
    prompt_buckets: tuple[int, ...]
    """Prompt lengths in tokens, rising; a prompt runs in the shortest that holds it."""
    horizon: int
    action_dim: int = 32
    """Width of the latent actions; the robot's own columns come first (the bundle's layout)."""
    num_steps: tuple[int, ...] = NUM_STEPS
    prompt_state: PromptState = 'real'
    """State in the prompt: not at all (openpi's LIBERO), the robot's numbers (openpi), or padded
    with zeros to ``action_dim`` (LeRobot).
    """

    def __post_init__(self) -> None:
        _positive(self, 'image_size', 'patch', 'vocab_size', 'horizon', 'action_dim')
        if self.image_size % self.patch:
            raise ConfigError(
                f'image_size {self.image_size} is not a multiple of patch {self.patch}.'
            )
        if not self.views or len(set(self.views)) != len(self.views):
            raise ConfigError(f'views {list(self.views)} must be one or more different names.')
        for name in ('prompt_buckets', 'num_steps'):
            values: tuple[int, ...] = getattr(self, name)
            if not values or values[0] < 1 or list(values) != sorted(set(values)):
                raise ConfigError(f'{name} {list(values)} must rise, from 1 at least.')

    @property
    def tokens_per_view(self) -> int:
        """T: patches of one view."""
        return (self.image_size // self.patch) ** 2

    @property
    def image_tokens(self) -> int:
        """V * T: tokens of all views."""
        return len(self.views) * self.tokens_per_view

    @property
    def depth(self) -> int:
        """L: layers of the prefix and of the expert."""
        return self.prefix.depth

    @property
    def max_prompt_tokens(self) -> int:
        """The largest bucket."""
        return self.prompt_buckets[-1]


@dataclass(frozen=True, slots=True)
class StageSpec:
    """Tensors that a stage reads and writes, in the order of its ONNX graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def vision_spec(config: Pi05Config, activation: str = 'float32') -> StageSpec:
    """``pixels`` in [-1, 1], RGB planes, -> ``image_tokens`` in the prefix's width.

    ``activation`` is the dtype of what one engine hands to the next: 'float32', 'float16' or
    'bfloat16'. Pixels, noise and actions are float32 in every precision.
    """
    views, size = len(config.views), config.image_size
    return StageSpec(
        (TensorSpec('pixels', (views, 3, size, size), 'float32'),),
        (_image_tokens(config, activation),),
    )


def prefix_spec(config: Pi05Config, bucket: int, activation: str = 'float32') -> StageSpec:
    """Image tokens and ``tokens`` of the prompt -> ``keys`` (after RoPE) and ``values``.

    ``prefix_mask`` is True for tokens that count: all tokens of a view that is there, and the
    prompt without its padding.
    """
    return StageSpec(
        (
            _image_tokens(config, activation),
            TensorSpec('tokens', (1, bucket), 'int64'),
            _prefix_mask(config, bucket),
        ),
        _keys_values(config, bucket, activation),
    )


def denoise_spec(config: Pi05Config, bucket: int, activation: str = 'float32') -> StageSpec:
    """``noise`` -> normalised ``actions``, all Euler steps in one engine.

    The shapes do not depend on the number of steps.
    """
    latent = (1, config.horizon, config.action_dim)
    return StageSpec(
        (
            TensorSpec('noise', latent, 'float32'),
            *_keys_values(config, bucket, activation),
            _prefix_mask(config, bucket),
        ),
        (TensorSpec('actions', latent, 'float32'),),
    )


def denoise_step_spec(config: Pi05Config, bucket: int, activation: str = 'float32') -> StageSpec:
    """One evaluation of the velocity: latent ``x`` and its time's ``modulation`` -> ``velocity``.

    Row 2i and 2i + 1 of ``modulation`` are the two norms of layer i, the last row is the final
    norm's; a row is scale, shift and gate side by side.
    """
    latent = (1, config.horizon, config.action_dim)
    return StageSpec(
        (
            TensorSpec('x', latent, 'float32'),
            TensorSpec('modulation', modulation_shape(config), 'float32'),
            *_keys_values(config, bucket, activation),
            _prefix_mask(config, bucket),
        ),
        (TensorSpec('velocity', latent, 'float32'),),
    )


def modulation_shape(config: Pi05Config) -> tuple[int, int]:
    """Shape of the adaRMS modulation of one step: [2 L + 1, 3 * expert width]."""
    return (2 * config.depth + 1, 3 * config.expert.width)


def euler_times(num_steps: int) -> tuple[float, ...]:
    """Time at which each step evaluates the velocity.

    Time runs 1 -> 0, noise to action: the reverse of the paper.
    """
    return tuple(1.0 - i / num_steps for i in range(num_steps))


def _image_tokens(config: Pi05Config, dtype: str) -> TensorSpec:
    return TensorSpec('image_tokens', (1, config.image_tokens, config.prefix.width), dtype)


def _prefix_mask(config: Pi05Config, bucket: int) -> TensorSpec:
    return TensorSpec('prefix_mask', (1, config.image_tokens + bucket), 'bool')


def _keys_values(config: Pi05Config, bucket: int, dtype: str) -> tuple[TensorSpec, TensorSpec]:
    prefix, tokens = config.prefix, config.image_tokens + bucket
    shape = (prefix.depth, 1, prefix.kv_heads, tokens, prefix.head_dim)
    return TensorSpec('keys', shape, dtype), TensorSpec('values', shape, dtype)


def _positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f'{name} {getattr(config, name)} must be at least 1.')


PI05 = Pi05Config(
    image_size=224,
    patch=14,
    views=('base', 'left_wrist', 'right_wrist'),
    vision=VisionConfig(width=1152, depth=27, heads=16, mlp=4304),
    prefix=PrefixConfig(width=2048, depth=18, heads=8, kv_heads=1, head_dim=256, mlp=16384),
    expert=ExpertConfig(width=1024, mlp=4096),
    vocab_size=257152,
    prompt_buckets=(16, 48, 112, 200),
    horizon=50,
)
"""The true size. Checkpoints differ in views, horizon and prompt_state."""

NANO = Pi05Config(
    image_size=140,
    patch=14,
    views=('base', 'wrist'),
    vision=VisionConfig(width=192, depth=4, heads=3, mlp=576),
    prefix=PrefixConfig(width=256, depth=4, heads=4, kv_heads=1, head_dim=64, mlp=640),
    expert=ExpertConfig(width=160, mlp=384),
    vocab_size=1024,
    prompt_buckets=(24, 48),
    horizon=10,
)
"""Small enough for one core of any processor: 5 million exported weights, a chunk in 30 ms."""
