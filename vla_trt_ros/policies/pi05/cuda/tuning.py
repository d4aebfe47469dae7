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
    """cols: query rows, depth: keys of a block, split: parts of the keys."""
    merge_rows: int = 4
    prefix: tuple[int, int, int, int] = (64, 64, 4, 2)
    """Prefix attention: query rows, keys of a block, warps, stages."""
    chain: bool = True
    """Programmatic dependent launch, and weights read ahead into L2 (compute capability 9.0)."""


BF16 = Tuning(
    qkv=Tile(16, 128),
    out=Tile(32, 128, split=4),
    gate_up=Tile(32, 128),
    down=Tile(32, 128, split=4),
    attend=Tile(64, 64, split=16, stages=1),
)
FP8 = Tuning(
    qkv=Tile(16, 256),
    out=Tile(32, 256, split=4),
    gate_up=Tile(32, 256),
    down=Tile(32, 256, split=4),
    attend=Tile(64, 64, split=16, stages=1),
)
