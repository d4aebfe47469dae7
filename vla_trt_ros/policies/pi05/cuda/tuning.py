"""Tile sizes of the decode kernels: measured choices, a row per kernel, precision and rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tile:
    """How one product is cut. ``cols`` x ``split`` programs stream the weights."""

    cols: int
    """Output columns of a program (of each half, where two products run side by side)."""
    depth: int
    """Inner columns of a pipeline stage."""
    split: int = 1
    """Programs that share a tile's inner dimension."""
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True, slots=True)
class Tuning:
    """Tiles of the decode products and of attention."""

    qkv: Tile
    out: Tile
    gate_up: Tile
    down: Tile
    attend: Tile
    """cols: query rows, depth: keys, at least the horizon."""
    merge_rows: int = 4
    prefix: tuple[int, int, int, int] = (64, 32, 4, 3)
    """Prefix attention: query rows, keys of a block, warps, stages."""
    chain: bool = True
    """Programmatic dependent launch (compute capability 9.0)."""
    touch: bool = True
    """Weights are read ahead into L2 before a kernel waits for the one in front of it."""
    late: bool = False
    """The next kernel is let go behind the product instead of in front of it."""


BF16 = Tuning(
    qkv=Tile(16, 128),
    out=Tile(32, 128, split=4),
    gate_up=Tile(32, 128),
    down=Tile(32, 128, split=4, stages=4),
    attend=Tile(64, 64, warps=8),
    touch=False,
    late=True,
)
FP8 = Tuning(
    qkv=Tile(16, 1024, warps=8),
    out=Tile(32, 512, split=4, warps=8),
    gate_up=Tile(32, 1024, warps=8),
    down=Tile(32, 1024, split=4, warps=8),
    attend=Tile(64, 64, warps=8),
)
