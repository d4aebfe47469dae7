"""The graphs of a whole bundle at further precisions, with the manifest rows that name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vla_trt_ros.bundle import Bundle, EngineEntry, SourceEntry
from vla_trt_ros.config import STAGES, Precision
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.graphs import GraphKey, float_graphs, stage_spec_of
from vla_trt_ros.export.precision import check_stage, precision_row
from vla_trt_ros.export.quantize.ranges import Ranges
from vla_trt_ros.export.quantize.stage import QuantizedStage, quantize_stage


@dataclass(slots=True)
class NewGraphs:
    """What was written, in the order it was."""

    sources: list[SourceEntry] = field(default_factory=list)
    engines: list[EngineEntry] = field(default_factory=list)
    """Graphs that ONNX Runtime runs as they are."""
    weights: list[str] = field(default_factory=list)
    """Files of weights, which these graphs share."""
    stages: list[QuantizedStage] = field(default_factory=list)


def quantize_bundle(
    bundle: Bundle,
    precisions: Sequence[Precision],
    folder: Path,
    *,
    ranges: Mapping[str, Ranges] | None = None,
    stages: Sequence[str] = STAGES,
    keys: Callable[[str, GraphKey], bool] = lambda stage, key: True,
    cpu: bool = True,
    gpu: bool = True,
    smooth: bool = True,
    half: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> NewGraphs:
    """Write every graph of ``stages`` at ``precisions`` into ``folder``, from the float graphs.

    A stage on which a precision is refused is left out; check_stage says why. int8 is written
    twice: with ``gpu`` as a source for GPUs and, with ``cpu``, in float32 for ONNX Runtime on a
    CPU. ``keys`` picks buckets and step counts. ``smooth``, ``half`` and errors: as in
    `quantize_stage`. ConfigError for a precision of which nothing is left to write.
    """
    new = NewGraphs()
    for row in map(precision_row, precisions):
        if not gpu and not (cpu and row.quantized and row.cpu_compute):
            raise ConfigError(
                f'{row.name} graphs are for GPUs alone, and none are asked for; choose int8, or '
                'leave --cpu-only out.'
            )
    for precision in precisions:
        row = precision_row(precision)
        for stage in stages:
            if stage in row.refused:
                continue
            check_stage(stage, precision)
            held = {k: p for k, p in float_graphs(bundle, stage).items() if keys(stage, k)}
            found = (ranges or {}).get(stage)
            report(f'{stage} {precision}')
            on_cpu = cpu and row.quantized and row.cpu_compute is not None
            for form in (*([False] if gpu else []), *([True] if on_cpu else [])):
                options = _Options(found, form, smooth, half)
                _write(new, bundle, stage, precision, held, folder, options)
    return new


@dataclass(frozen=True, slots=True)
class _Options:
    """Of `quantize_stage`."""

    ranges: Ranges | None
    cpu: bool
    smooth: bool
    half: bool


def _write(
    new: NewGraphs,
    bundle: Bundle,
    stage: str,
    precision: Precision,
    held: Mapping[GraphKey, Path],
    folder: Path,
    options: _Options,
) -> None:
    mark = f'{precision}-cpu' if options.cpu else precision
    graphs = {key: folder / f'{_stem(stage, key)}.{mark}.onnx' for key in held}
    weights = folder / f'{stage}.{mark}.weights'
    made = quantize_stage(
        stage,
        precision,
        {held[key]: graphs[key] for key in held},
        weights,
        ranges=options.ranges,
        cpu=options.cpu,
        smooth=options.smooth,
        half=options.half,
    )
    new.stages.append(made)
    new.weights.append(weights.name)
    for (bucket, steps), path in graphs.items():
        spec = stage_spec_of(bundle, stage, bucket, made.boundary)
        if options.cpu:
            new.engines.append(
                EngineEntry(
                    stage=stage,  # type: ignore[arg-type]
                    backend='onnxruntime',
                    precision=precision,
                    file=path.name,
                    inputs=spec.inputs,
                    outputs=spec.outputs,
                    prompt_bucket=bucket,
                    num_steps=steps,
                )
            )
            continue
        new.sources.append(
            SourceEntry(
                stage=stage,  # type: ignore[arg-type]
                precision=precision,
                file=path.name,
                inputs=spec.inputs,
                outputs=spec.outputs,
                prompt_bucket=bucket,
                num_steps=steps,
                weights=(weights.name,),
            )
        )


def _stem(stage: str, key: GraphKey) -> str:
    return '_'.join([stage, *(str(number) for number in key if number is not None)])
