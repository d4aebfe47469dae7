"""Tile sizes of the decode kernels: measured choices, a row per kernel, precision and rows."""

from __future__ import annotations

from dataclasses import dataclass, replace


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
    """Pipeline depth; 0 reads all weights of a program ahead, before it waits for its input."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Tiles of the decode products and of attention."""

    qkv: Tile
    out: Tile
    gate_up: Tile
    down: Tile
    attend: Tile
    """cols: query rows, depth: keys, at least the horizon."""
    merge_rows: int
    """Rows, and warps, of a program that merges the parts of attention."""
    prefix: tuple[int, int, int, int] = (64, 32, 4, 3)
    """Prefix attention: query rows, keys of a block, warps, stages."""
    geglu_rows: int = 512
    """Rows from which the prefix's gate and up product and GeGLU are one kernel."""
    chain: bool = True
    """Programmatic dependent launch (compute capability 9.0)."""
    touch: bool = True
    """Weights are read ahead into L2 before a kernel waits for the one in front of it."""
    release: int = 1
    """When the next kernel is let go: 0 at once, 1 when the inputs are there, 2 behind the
    product."""
    whole: bool = True
    """All denoise steps in one kernel where persistent.py serves the network and the GPU."""


# Measured on an H200: benchmarks/h200-pi05.json, docs/performance.md.
BF16 = Tuning(
    qkv=Tile(16, 256, stages=4),
    out=Tile(32, 128, split=4, stages=5),
    gate_up=Tile(16, 128, stages=4),
    down=Tile(32, 128, split=4, stages=5),
    attend=Tile(64, 64, warps=8),
    merge_rows=1,
    touch=False,
    release=2,
)
BF16_SHORT = replace(
    BF16,
    qkv=Tile(16, 128, stages=6),
    attend=Tile(16, 64),
    touch=True,
    release=0,
)
FP8 = Tuning(
    qkv=Tile(16, 1024, stages=0),
    out=Tile(16, 256, stages=4),
    gate_up=Tile(32, 1024, stages=0),
    down=Tile(32, 1024, split=4, warps=8, stages=0),
    attend=Tile(64, 64),
    merge_rows=1,
)
FP8_SHORT = replace(
    FP8,
    out=Tile(16, 1024, stages=0),
    down=Tile(32, 1024, split=4, stages=0),
    attend=Tile(16, 64),
    merge_rows=2,
)


def tuning_for(quantized: bool, horizon: int) -> Tuning:
    """The measured choice for a precision; horizons up to 16 have their own."""
    if horizon <= 16:
        return FP8_SHORT if quantized else BF16_SHORT
    return FP8 if quantized else BF16
