"""Flow-matching noise: one seeded sequence, whoever asks."""

from __future__ import annotations

import numpy as np

from vla_trt_ros.datatypes import Float32Array


class Noise:
    """Standard normal float32 of ``shape``. Drawing ahead changes when, not what."""

    def __init__(self, shape: tuple[int, int], seed: int) -> None:
        self._drawn: Float32Array = np.empty(shape, np.float32)
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Start again from ``seed``."""
        self._generator = np.random.default_rng(seed)
        self._ahead = False

    def draw_ahead(self) -> None:
        """Draw what the next `take` gives; what the last one gave is no longer needed."""
        if not self._ahead:
            self._generator.standard_normal(dtype=np.float32, out=self._drawn)
            self._ahead = True

    def take(self) -> Float32Array:
        """The next of the sequence, valid until more is drawn."""
        self.draw_ahead()
        self._ahead = False
        return self._drawn
