"""Does every precision of a bundle build for every GPU that it should, and is it refused where it
should be? Asked of TensorRT itself, not of our tables.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vla_trt_ros.backends.trt_module import TensorRT
from vla_trt_ros.bundle import Bundle, SourceEntry
from vla_trt_ros.config import Precision, precisions_of
from vla_trt_ros.errors import BackendError
from vla_trt_ros.export.calibration import collect_ranges
from vla_trt_ros.export.frames import synthetic_frames
from vla_trt_ros.export.quantize.bundle import quantize_bundle
from vla_trt_ros.export.trt.builder import BuildOptions, build_plan
from vla_trt_ros.export.trt.graph_facts import read_graph

PRECISIONS: tuple[Precision, ...] = ('fp16', 'bf16', 'fp8', 'int8', 'int4', 'nvfp4')
TARGETS = ('sm_86', 'sm_89', 'sm_120')
_DATATYPES = {'fp8': 'fp8', 'int8': 'int8', 'int4': 'int4', 'nvfp4': 'fp4e2m1'}
"""Precision -> how the builder's log calls its weights."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One graph for one GPU."""

    stage: str
    precision: str
    target: str
    expected: bool
    """Whether config.py says that the GPU computes the precision."""
    built: bool
    refusal: str
    """The builder's words where it was not built."""
    attentions: int
    fused_attentions: int | None
    low_precision_layers: dict[str, int]
    """Datatype of 8 bits or fewer among the weights -> layers that read such."""
    layers: int | None
    plan_bytes: int
    seconds: float

    @property
    def good(self) -> bool:
        """Built or refused as expected; and if built, every attention in one kernel, and layers
        that read weights in the datatype of the precision.
        """
        if not self.built or not self.expected:
            return self.built == self.expected
        datatype = _DATATYPES.get(self.precision)
        quantised = datatype is None or self.low_precision_layers.get(datatype, 0) > 0
        return quantised and self.fused_attentions == self.attentions


def make_sources(
    bundle: Bundle, precisions: Sequence[Precision], bucket: int, num_steps: int, folder: Path
) -> list[SourceEntry]:
    """Graphs of ``bundle`` at ``precisions`` in ``folder``, calibrated on synthetic frames: good
    for building, not for judging. A precision that a stage refuses has none.
    """
    calibration, _ = synthetic_frames(bundle, 16, ('reach the goal',)).split()
    new = quantize_bundle(
        bundle,
        precisions,
        folder,
        ranges=collect_ranges(bundle, calibration),
        keys=lambda stage, key: key[0] in (None, bucket) and key[1] in (None, num_steps),
    )
    return new.sources


def compile_matrix(
    sources: Sequence[SourceEntry], targets: Sequence[str], folder: Path, trt: TensorRT
) -> Iterator[Cell]:
    """Build each of ``sources`` (files in ``folder``) for each of ``targets``."""
    for source in sources:
        graph = folder / source.file
        facts = read_graph(graph)
        for target in targets:
            plan = folder / 'matrix.plan'
            begin = time.monotonic()
            built, refusal = None, ''
            try:
                options = BuildOptions(source.stage, source.precision, target)
                built = build_plan(graph, plan, options, trt)
            except BackendError as error:
                refusal = str(error)
            log = built.log if built else None
            yield Cell(
                stage=source.stage,
                precision=source.precision,
                target=target,
                expected=source.precision in precisions_of(target),
                built=built is not None,
                refusal=refusal,
                attentions=facts.attentions,
                fused_attentions=log.fused_attentions if log else None,
                low_precision_layers=(log.low_precision or {}) if log else {},
                layers=log.layers if log else None,
                plan_bytes=built.plan_bytes if built else 0,
                seconds=round(time.monotonic() - begin, 2),
            )


def table(cells: Sequence[Cell]) -> str:
    """For people: a line per stage and precision, a column per GPU."""
    targets = list(dict.fromkeys(c.target for c in cells))
    lines = [f'{"stage":<9} {"precision":<10}' + ''.join(f'{t:<26}' for t in targets)]
    for key in dict.fromkeys((c.stage, c.precision) for c in cells):
        row = [c for c in cells if (c.stage, c.precision) == key]
        lines.append(f'{key[0]:<9} {key[1]:<10}' + ''.join(f'{_word(c):<26}' for c in row))
    return '\n'.join(line.rstrip() for line in lines)


def _word(cell: Cell) -> str:
    mark = '' if cell.good else ' (!)'
    if not cell.built:
        return f'refused{mark}'
    return f'{cell.fused_attentions}/{cell.attentions} fused, {cell.seconds:.1f} s{mark}'
