"""A small SentencePiece vocabulary of our own, trained on the prompts a policy will hear."""

from __future__ import annotations

import io
import string
from collections.abc import Iterable

import sentencepiece

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.preprocess.tokenize import STATE_BINS, clean

_SPACE = '\u2581'  # how SentencePiece writes a space
_BYTES = 256
_OLDEST = (0, 2, 3)
"""Older SentencePiece ends the process where letters that no prompt has are required."""


def train_vocabulary(prompts: Iterable[str], vocab_size: int) -> bytes:
    """A vocabulary of at most ``vocab_size`` pieces as the bytes of a .model file.

    Each state number (with its space) and each fixed part of the prompt is one piece, so a robot
    with four joints spends four tokens on its state. Bytes are pieces too: any text encodes. The
    same prompts give the same vocabulary. ConfigError if ``vocab_size`` is too small for that, or
    SentencePiece too old.
    """
    if _version(sentencepiece.__version__) < _OLDEST:
        raise ConfigError(
            f'SentencePiece {sentencepiece.__version__} cannot train this vocabulary: install '
            f'{".".join(map(str, _OLDEST))} or newer, or give one with --tokenizer.'
        )
    numbers = [f'{_SPACE}{n}' for n in range(-1, STATE_BINS)]
    fixed = ['Task:', f',{_SPACE}State:', f';\nAction:{_SPACE}', '\n']
    letters = string.ascii_letters + string.digits + string.punctuation
    special = 4
    smallest = special + _BYTES + len(numbers) + len(fixed) + len(letters) + 1
    if vocab_size <= smallest:
        raise ConfigError(f'vocab_size {vocab_size} is too small; give more than {smallest}.')
    text = sorted({clean(p) for p in prompts})
    # The prompt's task follows a space, so its first word is learnt as one that does.
    sentences = [f' {line}' for line in text]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type='bpe',
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        user_defined_symbols=[*numbers, *fixed],
        required_chars=letters,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name='identity',
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split('.')[:3] if word.isdigit())
