"""The weights of a network and all that goes with them -> a bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vla_trt_ros.bundle import EngineEntry, Layout, SourceEntry
from vla_trt_ros.config import Precision
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.bundle_writer import BundleWriter
from vla_trt_ros.export.pi05.model import Pi05
from vla_trt_ros.export.pi05.parameters import HalfParameters, ModelParameters, ParameterSource
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
    """Export ``network`` to ONNX in each of ``precisions`` and put the bundle at ``out``.

    Without precisions nothing of ONNX is needed, and the bundle has no engines yet.
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
        sources: list[SourceEntry] = []
        engines: list[EngineEntry] = []
        notes = dict(contents.notes)
        if precisions:
            # Not at the top: a bundle for cuda_graph alone needs no ONNX.
            from vla_trt_ros.export.pi05.onnx_graphs import (
                export_graphs,
                onnx_engine,
                store_halves,
            )
            from vla_trt_ros.export.to_onnx import OPSET

            for precision in precisions:
                sources += export_graphs(source, precision, writer.folder, report)
            if half:
                store_halves(sources, writer.folder)
            engines = [onnx_engine(entry) for entry in sources if entry.precision == 'fp32']
            notes = {'onnx_opset': str(OPSET), **notes}
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
            engines=engines,
            sources=sources,
            created_by=contents.created_by,
            notes=notes,
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
