"""Which scene seeds are for what, so that no scene is both learned and judged.

A seed places object, goal and arm. Meta-World draws them from the seed alone, so two tasks may
share one; what counts is that training never sees a seed from HELD_OUT_FROM up.
"""

from __future__ import annotations

from vla_trt_ros.errors import ConfigError

TRAINING_SEEDS = range(0, 100_000)
"""Demonstrations are recorded on these."""

VALIDATION_SEEDS = range(100_000, 200_000)
"""Looked at during training, to choose a checkpoint: no fair measure of it either."""

HELD_OUT_FROM = 900_000
"""From here up a seed is never trained or tuned on: what published success is measured on."""


def check_evaluation_seeds(seeds: range) -> None:
    """ConfigError where one of ``seeds`` (rising) is for training or validation, or negative."""
    if seeds and seeds[0] < 0:
        raise ConfigError(f'seed {seeds[0]} is negative; held-out seeds begin at {HELD_OUT_FROM}.')
    for used, what in ((TRAINING_SEEDS, 'training'), (VALIDATION_SEEDS, 'validation')):
        first, last = max(seeds.start, used.start), min(seeds.stop, used.stop) - 1
        if first <= last:
            raise ConfigError(
                f'seeds {first} to {last} are for {what} ({used.start} to {used.stop - 1}); '
                f'choose {HELD_OUT_FROM} or more, or say --allow-training-seeds.'
            )


def check_training_seeds(seeds: range) -> None:
    """ConfigError where one of ``seeds`` (rising) is held out for evaluation, or negative."""
    if seeds and seeds[0] < 0:
        raise ConfigError(f'seed {seeds[0]} is negative; training seeds begin at 0.')
    if seeds and seeds[-1] >= HELD_OUT_FROM:
        raise ConfigError(
            f'seed {seeds[-1]} is held out for evaluation ({HELD_OUT_FROM} and more); '
            f'choose seeds below {TRAINING_SEEDS.stop}.'
        )
