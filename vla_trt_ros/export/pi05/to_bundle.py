"""The weights of a network -> a bundle of ONNX graphs, stage by stage.

Graphs are traced without weights and the weights streamed to disk one tensor at a time, so memory
stays far below the size of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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
    skeleton,
)
from vla_trt_ros.export.pi05.stages import DenoiseStepStage, PrefixStage, VisionStage
from vla_trt_ros.export.quantize.halves import repack
from vla_trt_ros.export.to_onnx import OPSET, trace_stage
from vla_trt_ros.export.unroll import unroll
from vla_trt_ros.export.weightless import Traced
from vla_trt_ros.export.weights import WeightFile
from vla_trt_ros.policies.pi05.spec import (
    Pi05Config,
    StageSpec,
    denoise_spec,
    denoise_step_spec,
    euler_times,
    prefix_spec,
    vision_spec,
)
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


def time_rows(config: Pi05Config) -> tuple[list[float], dict[int, tuple[int, ...]]]:
    """Every time that any step count needs, and per step count its rows in that list."""
    times = sorted({t for n in config.num_steps for t in euler_times(n)}, reverse=True)
    return times, {n: tuple(times.index(t) for t in euler_times(n)) for n in config.num_steps}


def _export_graphs(
    source: ParameterSource, precision: Precision, folder: Path, report: Report
) -> Iterator[SourceEntry]:
    config, compute = source.config, DTYPES[precision]
    activation = str(compute).removeprefix('torch.')
    model = skeleton(config, compute)
    # fp32 files came first and have the plain names.
    mark = '' if precision == 'fp32' else f'.{precision}'

    def weight_file(stage: str) -> WeightFile:
        return WeightFile(folder / f'{stage}{mark}.weights')

    def save(
        weights: WeightFile,
        traced: Traced,
        name: str,
        spec: StageSpec,
        bucket: int | None = None,
        num_steps: int | None = None,
    ) -> SourceEntry:
        file = f'{name}{mark}.onnx'
        weights.save_traced(traced, folder / file, source.load)
        stage = weights.path.name.split('.')[0]
        return SourceEntry(
            stage=stage,  # type: ignore[arg-type]
            precision=precision,
            file=file,
            inputs=spec.inputs,
            outputs=spec.outputs,
            prompt_bucket=bucket,
            num_steps=num_steps,
            weights=(weights.path.name,),
        )

    with weight_file('vision') as weights:
        report(f'vision {precision}')
        spec = vision_spec(config, activation)
        yield save(weights, trace_stage(VisionStage(model), spec), 'vision', spec)
    with weight_file('prefix') as weights:
        for bucket in config.prompt_buckets:
            report(f'prefix_{bucket} {precision}')
            spec = prefix_spec(config, bucket, activation)
            traced = trace_stage(PrefixStage(model), spec)
            yield save(weights, traced, f'prefix_{bucket}', spec, bucket)
    times, rows = time_rows(config)
    table = modulation_table(source, times).numpy()
    with weight_file('denoise') as weights:
        for bucket in config.prompt_buckets:
            step: Traced | None = None
            spec = denoise_spec(config, bucket, activation)
            for num_steps in config.num_steps:
                name = f'denoise_{bucket}_{num_steps}'
                report(f'{name} {precision}')
                if step is None:
                    one = denoise_step_spec(config, bucket, activation)
                    step = trace_stage(DenoiseStepStage(model), one)
                loop = Traced(unroll(step.model, spec, table, rows[num_steps]), step.recipes)
                yield save(weights, loop, name, spec, bucket, num_steps)


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
