"""Task and state -> prompt tokens, as Pi0.5 was trained on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from vla_trt_ros.datatypes import Float32Array, Float64Array
from vla_trt_ros.errors import BadPrompt, BundleError

STATE_BINS = 256
# Lower edges of the bins; a value below -1 falls into bin -1, as in training.
_EDGES: Float64Array = np.linspace(-1.0, 1.0, STATE_BINS + 1)[:-1]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenised prompt and the engine size it runs in."""

    tokens: tuple[int, ...]
    bucket: int
    """Tokens that the chosen engine takes, padding included."""


class Tokenizer:
    """A SentencePiece vocabulary and the prompt lengths that engines exist for."""

    def __init__(self, vocabulary: Path, buckets: tuple[int, ...], vocab_size: int) -> None:
        """Load ``vocabulary`` (a .model file: the bundle's own, or PaliGemma's).

        BundleError if it is no vocabulary, or if it has more pieces than the network's embedding
        table (``vocab_size``).
        """
        try:
            self._pieces: Any = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
        except (OSError, RuntimeError) as error:
            raise BundleError(
                f'{vocabulary} is no SentencePiece vocabulary ({error}); export the bundle again.'
            ) from error
        size = self._pieces.get_piece_size()
        if size > vocab_size:
            raise BundleError(
                f'{vocabulary} has {size} pieces, the network embeds {vocab_size}; '
                'this is the vocabulary of another model.'
            )
        self.buckets = buckets

    def encode(self, task: str, state: Float32Array | None = None) -> Prompt:
        """Tokens of ``task`` and of the normalised ``state`` [D], if the model reads one.

        Raises BadPrompt for a task that is empty, not text, or too long for every bucket.
        """
        text = clean(task)
        if state is None:
            # The newline is encoded by itself: joined to a word it might become another piece.
            tokens = [*self._pieces.encode(text, add_bos=True), *self._pieces.encode('\n')]
        else:
            tokens = self._pieces.encode(with_state(text, state), add_bos=True)
        for bucket in self.buckets:
            if len(tokens) <= bucket:
                return Prompt(tuple(tokens), bucket)
        raise BadPrompt(
            f'prompt {_short(task)} makes {len(tokens)} tokens, the largest engine takes '
            f'{self.buckets[-1]}; say it in fewer words.'
        )


def clean(task: str) -> str:
    """The task without surrounding space, '_' and line ends turned to spaces.

    BadPrompt if nothing is left or it cannot be written as UTF-8.
    """
    if not isinstance(task, str):
        raise BadPrompt(f'prompt is {type(task).__name__}, not text; send a string.')
    text = task.strip().replace('_', ' ').replace('\n', ' ')
    if not text.strip():
        raise BadPrompt('prompt is empty; say what to do, as in "open the drawer".')
    try:
        text.encode('utf-8')
    except UnicodeEncodeError as error:
        raise BadPrompt(f'prompt {task!r} is not valid text ({error.reason}).') from error
    return text


def with_state(text: str, state: Float32Array) -> str:
    """The prompt of a model that reads its state as numbers 0 to 255."""
    numbers = ' '.join(map(str, digitize(state).tolist()))
    return f'Task: {text}, State: {numbers};\nAction: '


def digitize(state: Float32Array) -> np.typing.NDArray[np.int64]:
    """Normalised state [D] -> bin of each entry: -1 is 0, 1 is 255, below -1 is -1."""
    # np.digitize without its check of the edges, which takes as long as the search.
    return np.asarray(np.searchsorted(_EDGES, state, 'right') - 1, dtype=np.int64)


def _short(task: str) -> str:
    return repr(task if len(task) <= 40 else task[:37] + '...')
