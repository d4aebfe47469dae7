"""Prompts as tensors: all phrasings of a task tokenised once, the state's numbers put in later."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vla_trt_ros.preprocess.tokenize import STATE_BINS, Tokenizer, digitize
from vla_trt_ros.sim.prompts import prompts_for

_PROBE = np.array([-0.9, -0.3, 0.3, 0.9], np.float32)


class PromptTable:
    """``tokens`` of any phrasing of any task with any state, made on the GPU.

    Relies on each state number being one piece of the vocabulary, and checks it.
    """

    def __init__(
        self, vocabulary: bytes, tasks: tuple[str, ...], length: int, vocab_size: int
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'tokenizer.model'
            path.write_bytes(vocabulary)
            self._tokenizer = Tokenizer(path, (length,), vocab_size)
        numbers = {self._state_tokens(n)[0] for n in range(STATE_BINS)}
        assert len(numbers) == STATE_BINS, 'each state number must be a token of its own'
        self.number_tokens = torch.tensor(
            [self._state_tokens(n)[0] for n in range(-1, STATE_BINS)]
        )
        rows: list[list[int]] = []
        places: list[int] = []
        first: list[int] = []
        self.counts: list[int] = []
        for task in tasks:
            first.append(len(rows))
            for phrase in prompts_for(task):
                tokens = list(self._tokenizer.encode(phrase, _PROBE).tokens)
                probe = [self._state_tokens(n)[0] for n in digitize(_PROBE).tolist()]
                place = next(i for i in range(len(tokens)) if tokens[i : i + 4] == probe)
                rows.append(tokens + [0] * (length - len(tokens)))
                places.append(place)
                self.counts.append(len(tokens))
        self._rows = torch.tensor(rows)
        self._places = torch.tensor(places)
        self._lengths = torch.tensor(self.counts)
        self._first = torch.tensor(first)
        self._phrases = torch.tensor([len(prompts_for(task)) for task in tasks])
        self._edges = torch.linspace(-1.0, 1.0, STATE_BINS + 1, dtype=torch.float64)[:-1]

    def to(self, device: torch.device) -> PromptTable:
        """Move the tables."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def draw(self, task: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A random phrasing for each of ``task`` [B] with normalised ``state`` [B, 4] ->
        tokens int64 [B, P] and which of them count, bool [B, P].
        """
        draw = torch.rand(task.shape, device=task.device)
        phrase = self._first[task] + (draw * self._phrases[task]).long()
        return self.fill(phrase, state)

    def canonical(self, task: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As `draw`, with the phrasing that `prompt_for` gives."""
        return self.fill(self._first[task], state)

    def fill(self, phrase: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As `draw`, with the phrasing of row ``phrase`` [B]."""
        bins = torch.bucketize(state.double(), self._edges, right=True) - 1
        numbers = self.number_tokens[bins + 1]
        columns = self._places[phrase][:, None] + torch.arange(4, device=state.device)
        tokens = self._rows[phrase].scatter(1, columns, numbers)
        length = self._lengths[phrase][:, None]
        return tokens, torch.arange(tokens.shape[1], device=state.device) < length

    def check(self, task: str, row: int, state: np.typing.NDArray[np.float32]) -> None:
        """AssertionError unless `canonical` gives what the policy's tokenizer gives."""
        expected = list(self._tokenizer.encode(prompts_for(task)[0], state).tokens)
        tokens, mask = self.canonical(
            torch.tensor([row], device=self._rows.device),
            torch.from_numpy(state)[None].to(self._rows.device),
        )
        assert tokens[0][mask[0]].tolist() == expected, f'tokens of {task} differ'

    def _state_tokens(self, number: int) -> list[int]:
        tokens: list[int] = self._tokenizer._pieces.encode(f' {number}')
        assert len(tokens) == 1, f'state number {number} is no single token'
        return tokens
