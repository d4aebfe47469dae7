"""What the stages of a Pi0.5 network compute and read, counted from its sizes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vla_trt_ros.policies.pi05.spec import Pi05Config, modulation_shape

Stage = Literal['vision', 'prefix', 'denoise']


@dataclass(frozen=True, slots=True)
class StageWork:
    """One run of a stage; for denoise that is one Euler step. Counts of elements, not bytes."""

    stage: Stage
    runs: int
    """Runs for one chunk: the step count for denoise, else 1."""
    flop: int
    """Of one run: 2 for a multiply-add, matrix products and attention, nothing else."""
    weights: int
    """Of all matrix products; every run reads each of them once."""
    kv_cache: int
    """Keys and values of the prompt, which a prefix run writes and a denoise run reads."""
    half_weights: int
    """Kept in memory and never quantised: biases, norms, positions, token embeddings."""
    table: int
    """Float32 numbers tabulated per step: the adaRMS modulation."""
    activations: int
    """Alive at once in the widest layer: its residual, its input and its hidden tensors."""


def network_work(config: Pi05Config, bucket: int, num_steps: int) -> tuple[StageWork, ...]:
    """Vision, prefix and denoise, for prompts of ``bucket`` tokens and ``num_steps`` steps."""
    return (
        vision_work(config),
        prefix_work(config, bucket),
        denoise_work(config, bucket, num_steps),
    )


def vision_work(config: Pi05Config) -> StageWork:
    """SigLIP over all views at once, and the projector behind it."""
    v, width = config.vision, config.vision.width
    patch = 3 * config.patch**2
    weights = v.depth * (4 * width**2 + 2 * width * v.mlp)
    weights += patch * width + width * config.prefix.width
    biases = v.depth * (5 * width + v.mlp) + width + config.prefix.width
    norms = (2 * v.depth + 1) * 2 * width
    tokens, views = config.tokens_per_view, len(config.views)
    return StageWork(
        stage='vision',
        runs=1,
        flop=views * (2 * tokens * weights + v.depth * _attention(tokens, tokens, width)),
        weights=weights,
        kv_cache=0,
        half_weights=biases + norms + tokens * width,
        table=0,
        activations=config.image_tokens * (2 * width + 2 * v.mlp),
    )


def prefix_work(config: Pi05Config, bucket: int) -> StageWork:
    """Gemma over image and prompt tokens; of the last layer only keys and values."""
    p, tokens = config.prefix, config.image_tokens + bucket
    full = p.depth - 1
    key_value = 2 * p.width * p.kv_heads * p.head_dim
    weights = full * _layer_weights(config, p.width, p.mlp) + key_value
    return StageWork(
        stage='prefix',
        runs=1,
        flop=2 * tokens * weights + full * _attention(tokens, tokens, p.heads * p.head_dim),
        weights=weights,
        kv_cache=kv_elements(config, bucket),
        half_weights=(2 * full + 1) * p.width + config.vocab_size * p.width,
        table=0,
        activations=tokens * (2 * p.width + 3 * p.mlp),
    )


def denoise_work(config: Pi05Config, bucket: int, num_steps: int) -> StageWork:
    """One Euler step of the action expert. Time embedding and adaRMS are a table."""
    p, e, rows = config.prefix, config.expert, config.horizon
    keys = config.image_tokens + bucket + rows
    weights = p.depth * _layer_weights(config, e.width, e.mlp) + 2 * config.action_dim * e.width
    modulation = modulation_shape(config)
    return StageWork(
        stage='denoise',
        runs=num_steps,
        flop=2 * rows * weights + p.depth * _attention(rows, keys, p.heads * p.head_dim),
        weights=weights,
        kv_cache=kv_elements(config, bucket),
        half_weights=e.width + config.action_dim,
        table=num_steps * modulation[0] * modulation[1],
        activations=rows * (2 * e.width + 3 * e.mlp),
    )


def kv_elements(config: Pi05Config, bucket: int) -> int:
    """Keys and values of all layers for a prompt of ``bucket`` tokens."""
    p = config.prefix
    return 2 * p.depth * p.kv_heads * (config.image_tokens + bucket) * p.head_dim


def _layer_weights(config: Pi05Config, width: int, mlp: int) -> int:
    """A Gemma layer: queries, keys, values and output; gate, up and down."""
    p = config.prefix
    return width * p.head_dim * 2 * (p.heads + p.kv_heads) + 3 * width * mlp


def _attention(queries: int, keys: int, width: int) -> int:
    """Both products of an attention; ``width`` is heads times head dim."""
    return 4 * queries * keys * width
