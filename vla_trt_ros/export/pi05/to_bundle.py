"""The weights of a network -> a bundle of ONNX graphs, stage by stage.

Graphs are traced without weights and the weights streamed to disk one tensor at a time, so memory
stays far below the size of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from vla_trt_ros.bundle import EngineEntry, Layout, SourceEntry
from vla_trt_ros.config import STAGES, Precision
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.bundle_writer import BundleWriter
from vla_trt_ros.export.pi05.model import Pi05
from vla_trt_ros.export.pi05.parameters import (
    DTYPES,
    HalfParameters,
    ModelParameters,
    ParameterSource,
    modulation_table,
)
from vla_trt_ros.export.pi05.trace import trace_graphs
from vla_trt_ros.export.quantize.halves import repack
from vla_trt_ros.export.to_onnx import OPSET
from vla_trt_ros.export.weights import WeightFile
from vla_trt_ros.policies.pi05.spec import Pi05Config
from vla_trt_ros.preprocess.normalize import Method, NormStats, save_norm_stats

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BundleContents:
    """What a bundle holds besides the network."""

    name: str
    layout: Layout
    norm_stats: dict[str, NormStats]
    vocabulary: bytes
    """A SentencePiece .model file."""
    model_card: str
    """Markdown."""
    created_by: str
    normalization: Method = 'quantiles'
    notes: dict[str, str] = field(default_factory=dict)


def write_bundle(
    network: Pi05 | ParameterSource,
    contents: BundleContents,
    out: Path,
    report: Report,
    precisions: Sequence[Precision] = ('fp32',),
    *,
    half: bool = False,
) -> None:
    """Export ``network`` in each of ``precisions`` and put the bundle at ``out``.

    Every graph is entered as a source; those in fp32 are engines for ONNX Runtime, too. ``report``
    hears the name of each graph before it is made. ``half`` rounds the weights to float16 and
    stores those of fp32 graphs so; they compute in float32 as before. ConfigError for a precision
    that needs quantisation: that comes after, from these graphs.
    """
    source = ModelParameters(network) if isinstance(network, Pi05) else network
    check_precisions(precisions)
    if half:
        source = HalfParameters(source)
    with BundleWriter(out) as writer:
        sources = [
            entry
            for precision in precisions
            for entry in _export_graphs(source, precision, writer.folder, report)
        ]
        if half:
            _store_halves(sources, writer.folder)
        (writer.folder / 'tokenizer.model').write_bytes(contents.vocabulary)
        (writer.folder / 'README.md').write_text(contents.model_card, encoding='utf-8')
        save_norm_stats(writer.folder / 'norm_stats.json', contents.norm_stats)
        writer.commit(
            name=contents.name,
            family='pi05',
            config=source.config,
            layout=contents.layout,
            normalization=contents.normalization,
            norm_stats='norm_stats.json',
            tokenizer='tokenizer.model',
            model_card='README.md',
            engines=[_engine(entry) for entry in sources if entry.precision == 'fp32'],
            sources=sources,
            created_by=contents.created_by,
            notes={'onnx_opset': str(OPSET), **contents.notes},
        )


def check_precisions(precisions: Sequence[str]) -> None:
    """ConfigError unless each of ``precisions`` is one that `write_bundle` makes."""
    for precision in precisions:
        if precision not in ('fp32', 'bf16'):
            raise ConfigError(
                f'precision {precision!r} is none that is exported from the weights: fp32, bf16. '
                'Quantised ones are made from these.'
            )


def engine_count(config: Pi05Config) -> int:
    """How many graphs `write_bundle` reports per precision."""
    return 1 + len(config.prompt_buckets) * (1 + len(config.num_steps))


def _export_graphs(
    source: ParameterSource, precision: Precision, folder: Path, report: Report
) -> Iterator[SourceEntry]:
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


def _store_halves(sources: Sequence[SourceEntry], folder: Path) -> None:
    single = [s for s in sources if s.precision == 'fp32']
    for stage in STAGES:
        found = [s for s in single if s.stage == stage]
        for file in {name for s in found for name in s.weights}:
            repack([folder / s.file for s in found], folder / file)


def _engine(source: SourceEntry) -> EngineEntry:
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
