"""The weights of a network -> ONNX graphs in a bundle's folder.

Graphs are traced without weights and the weights streamed to disk one tensor at a time, so memory
stays far below the size of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from vla_trt_ros.bundle import EngineEntry, SourceEntry
from vla_trt_ros.config import STAGES, Precision
from vla_trt_ros.export.pi05.parameters import DTYPES, ParameterSource, modulation_table
from vla_trt_ros.export.pi05.trace import trace_graphs
from vla_trt_ros.export.quantize.halves import repack
from vla_trt_ros.export.weights import WeightFile


def export_graphs(
    source: ParameterSource, precision: Precision, folder: Path, report: Callable[[str], None]
) -> Iterator[SourceEntry]:
    """Write the graphs of one precision and their weights; an entry per graph. ``report`` hears
    the name of each before it is made.
    """
    # fp32 files came first and have the plain names.
    mark = '' if precision == 'fp32' else f'.{precision}'
    graphs = trace_graphs(
        source.config,
        DTYPES[precision],
        lambda times: modulation_table(source, times).numpy(),
        lambda name: report(f'{name} {precision}'),
    )
    for stage, group in groupby(graphs, key=lambda graph: graph.stage):
        with WeightFile(folder / f'{stage}{mark}.weights') as weights:
            for graph in group:
                file = f'{graph.name}{mark}.onnx'
                weights.save_traced(graph.traced, folder / file, source.load)
                yield SourceEntry(
                    stage=stage,
                    precision=precision,
                    file=file,
                    inputs=graph.spec.inputs,
                    outputs=graph.spec.outputs,
                    prompt_bucket=graph.bucket,
                    num_steps=graph.num_steps,
                    weights=(weights.path.name,),
                )


def store_halves(sources: Sequence[SourceEntry], folder: Path) -> None:
    """Store the weights of the fp32 graphs of ``sources`` as float16."""
    single = [s for s in sources if s.precision == 'fp32']
    for stage in STAGES:
        found = [s for s in single if s.stage == stage]
        for file in {name for s in found for name in s.weights}:
            repack([folder / s.file for s in found], folder / file)


def onnx_engine(source: SourceEntry) -> EngineEntry:
    """ONNX Runtime reads the graph as it is."""
    return EngineEntry(
        stage=source.stage,
        backend='onnxruntime',
        precision=source.precision,
        file=source.file,
        inputs=source.inputs,
        outputs=source.outputs,
        prompt_bucket=source.prompt_bucket,
        num_steps=source.num_steps,
    )
