"""A detector or classifier as a bundle: its graph at every precision, labels, card, hashes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import version_converter

from vla_trt_ros.bundle import EngineEntry, SourceEntry, Stage
from vla_trt_ros.config import Precision
from vla_trt_ros.datatypes import Float32Array, TensorSpec
from vla_trt_ros.errors import BundleError, ConfigError
from vla_trt_ros.export.bundle_writer import BundleWriter
from vla_trt_ros.export.perception.card import model_card
from vla_trt_ros.export.perception.half import rounded, stored_in_half, to_half
from vla_trt_ros.export.perception.parity import Parity, compare
from vla_trt_ros.export.perception.quantise import collect_ranges, quantise, quantise_for_cpu
from vla_trt_ros.perception.spec import ClassifierConfig, DetectorConfig, check_tensors

PRECISIONS: tuple[Precision, ...] = ('fp32', 'fp16', 'int8', 'fp8')
OPSET = 20
"""What the quantised forms need: float16 scales and float8 numbers."""


@dataclass(frozen=True, slots=True)
class PerceptionJob:
    """What to make. ``model`` is float32; ``images`` float32 [1, 3, side, side] each."""

    out: Path
    model: onnx.ModelProto
    config: DetectorConfig | ClassifierConfig
    precisions: Sequence[Precision]
    images: Sequence[Float32Array]
    """To calibrate int8 and fp8 on."""
    notes: dict[str, str]
    """Licence and origin, for people."""
    card: Path | None = None
    half: bool = False
    """Round weights to float16 numbers first, and store those of float32 graphs as such."""


def export(job: PerceptionJob, report: Callable[[str], None] = lambda text: None) -> list[Parity]:
    """Write the bundle; how far each precision is from float32 on the calibration pictures.

    float32 is always among them: it is what the others are made from. ConfigError for a
    precision that networks of convolutions have no form of, BundleError for a graph that does not
    fit its config.
    """
    for precision in job.precisions:
        if precision not in PRECISIONS:
            raise ConfigError(
                f'--precision {precision!r} is none of {", ".join(PRECISIONS)}, which detectors '
                'and classifiers have.'
            )
    stage: Stage = 'detect' if isinstance(job.config, DetectorConfig) else 'classify'
    model = _newer(job.model)
    if job.half:
        model = rounded(model)
    inputs, outputs = _specs(model)
    check_tensors(f'{job.out.name!r}, graph', job.config, inputs, outputs)
    engines: list[EngineEntry] = []
    sources: list[SourceEntry] = []
    results: list[Parity] = []

    def add(precision: Precision, graph: onnx.ModelProto, *, cpu: bool) -> None:
        """On a CPU float32 and its own int8 run; the others are for GPUs to be built from."""
        own = cpu and precision != 'fp32'
        name = f'{stage}.onnx' if precision == 'fp32' else f'{stage}.{precision}.onnx'
        name = f'{stage}.{precision}-cpu.onnx' if own else name
        report(name)
        onnx.checker.check_model(graph)
        onnx.save(graph, writer.folder / name)
        if cpu:
            engines.append(EngineEntry(stage, 'onnxruntime', precision, name, inputs, outputs))
        if not own:
            sources.append(SourceEntry(stage, precision, name, inputs, outputs))
        if precision != 'fp32':
            results.append(compare(name, model, graph, job.config, job.images))

    with BundleWriter(job.out) as writer:
        add('fp32', stored_in_half(model) if job.half else model, cpu=True)
        if 'fp16' in job.precisions:
            add('fp16', to_half(model), cpu=False)
        eight = [p for p in job.precisions if p in ('int8', 'fp8')]
        ranges = collect_ranges(model, job.images) if eight else {}
        for precision in eight:
            add(precision, quantise(model, precision, ranges), cpu=False)
        if 'int8' in eight:
            add('int8', quantise_for_cpu(model, job.images), cpu=True)
        written = job.card.read_text(encoding='utf-8') if job.card else ''
        card = written or model_card(job.out.name, job.config, job.notes, results)
        (writer.folder / 'README.md').write_text(card, encoding='utf-8')
        writer.commit(
            name=job.out.name,
            family='detector' if stage == 'detect' else 'classifier',
            config=job.config,
            model_card='README.md',
            engines=engines,
            sources=sources,
            created_by='vla-trt export',
            notes=job.notes,
        )
    return results


def with_output_kind(config: ClassifierConfig, output: Float32Array) -> ClassifierConfig:
    """``config`` that says whether ``output`` [1, labels], of any picture, is probabilities."""
    whole = abs(float(output.sum()) - 1.0) < 1e-3 and float(output.min()) >= 0
    return replace(config, output='probabilities' if whole else 'logits')


def _newer(model: onnx.ModelProto) -> onnx.ModelProto:
    version = next((o.version for o in model.opset_import if o.domain in ('', 'ai.onnx')), 0)
    if version >= OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises what it likes
        raise BundleError(
            f'the graph has opset {version} and cannot be taken to {OPSET} ({error}); export it '
            f'with opset {OPSET}.'
        ) from error


def _specs(model: onnx.ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    def spec(value: onnx.ValueInfoProto) -> TensorSpec:
        dims = value.type.tensor_type.shape.dim
        return TensorSpec(value.name, tuple(d.dim_value for d in dims), 'float32')

    weights = {t.name for t in model.graph.initializer}
    return (
        tuple(spec(v) for v in model.graph.input if v.name not in weights),
        tuple(spec(v) for v in model.graph.output),
    )
