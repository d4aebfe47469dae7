"""What the policy is told in an episode: the task's own words, a variation, or another task's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from vla_trt_ros.errors import ConfigError

PromptMode = Literal['canonical', 'varied', 'shuffled']
"""canonical: the task's first phrasing. varied: phrasing ``seed`` modulo their number. shuffled:
the canonical phrasing of another task, which `derangement` picks by the seed."""

PROMPT_MODES: tuple[PromptMode, ...] = get_args(PromptMode)


def derangement(tasks: Sequence[str], seed: int) -> dict[str, str]:
    """Each of ``tasks`` to another one, none to itself, each taken once; the same for a seed.

    Sattolo's shuffle, which makes one cycle through all. ConfigError for fewer than two tasks.
    """
    if len(tasks) < 2:
        raise ConfigError(
            f'prompts are shuffled among the tasks: name two or more, not {", ".join(tasks)!r}.'
        )
    rng = np.random.default_rng(seed)
    other = list(tasks)
    for i in range(len(other) - 1, 0, -1):
        j = int(rng.integers(0, i))
        other[i], other[j] = other[j], other[i]
    return dict(zip(tasks, other, strict=True))


def told(
    mode: PromptMode,
    task: str,
    seed: int,
    *,
    tasks: Sequence[str],
    prompts_of: Callable[[str], Sequence[str]],
) -> tuple[str, str]:
    """Whose words the policy hears on ``task`` and ``seed``, and the words: (task, prompt)."""
    if mode == 'shuffled':
        other = derangement(tasks, seed)[task]
        return other, prompts_of(other)[0]
    phrasings = prompts_of(task)
    return task, phrasings[seed % len(phrasings) if mode == 'varied' else 0]
