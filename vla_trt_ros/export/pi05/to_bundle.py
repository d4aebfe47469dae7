"""A PyTorch model -> a bundle of ONNX engines for ONNX Runtime, float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vla_trt_ros.bundle import EngineEntry, Layout
from vla_trt_ros.export.bundle_writer import BundleWriter
from vla_trt_ros.export.pi05.model import Pi05
from vla_trt_ros.export.pi05.stages import DenoiseStepStage, PrefixStage, VisionStage
from vla_trt_ros.export.to_onnx import OPSET, export_stage
from vla_trt_ros.export.unroll import unroll
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
from vla_trt_ros.preprocess.normalize import NormStats, save_norm_stats

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
    notes: dict[str, str] = field(default_factory=dict)


def write_bundle(model: Pi05, contents: BundleContents, out: Path, report: Report) -> None:
    """Export ``model`` and put the bundle at ``out``. ``report`` hears each engine's name."""
    with BundleWriter(out) as writer:
        engines = list(_export_engines(model, writer.folder, report))
        (writer.folder / 'tokenizer.model').write_bytes(contents.vocabulary)
        (writer.folder / 'README.md').write_text(contents.model_card, encoding='utf-8')
        save_norm_stats(writer.folder / 'norm_stats.json', contents.norm_stats)
        writer.commit(
            name=contents.name,
            family='pi05',
            config=model.config,
            layout=contents.layout,
            normalization='quantiles',
            norm_stats='norm_stats.json',
            tokenizer='tokenizer.model',
            model_card='README.md',
            engines=engines,
            created_by=contents.created_by,
            notes={'onnx_opset': str(OPSET), **contents.notes},
        )


def engine_count(config: Pi05Config) -> int:
    """How many engines `write_bundle` reports."""
    return 1 + len(config.prompt_buckets) * (1 + len(config.num_steps))


def time_rows(config: Pi05Config) -> tuple[list[float], dict[int, tuple[int, ...]]]:
    """Every time that any step count needs, and per step count its rows in that list."""
    times = sorted({t for n in config.num_steps for t in euler_times(n)}, reverse=True)
    return times, {n: tuple(times.index(t) for t in euler_times(n)) for n in config.num_steps}


def _export_engines(model: Pi05, folder: Path, report: Report) -> Iterator[EngineEntry]:
    config = model.config
    with WeightFile(folder / 'vision.weights') as weights:
        report('vision')
        spec = vision_spec(config)
        weights.save(export_stage(VisionStage(model), spec), folder / 'vision.onnx')
        yield _entry('vision', 'vision.onnx', spec)
    with WeightFile(folder / 'prefix.weights') as weights:
        for bucket in config.prompt_buckets:
            file = f'prefix_{bucket}.onnx'
            report(file.removesuffix('.onnx'))
            spec = prefix_spec(config, bucket)
            weights.save(export_stage(PrefixStage(model), spec), folder / file)
            yield _entry('prefix', file, spec, prompt_bucket=bucket)
    times, rows = time_rows(config)
    with torch.no_grad():
        table = model.modulation(torch.tensor(times)).numpy()
    with WeightFile(folder / 'denoise.weights') as weights:
        for bucket in config.prompt_buckets:
            step = export_stage(DenoiseStepStage(model), denoise_step_spec(config, bucket))
            spec = denoise_spec(config, bucket)
            for num_steps in config.num_steps:
                file = f'denoise_{bucket}_{num_steps}.onnx'
                report(file.removesuffix('.onnx'))
                weights.save(unroll(step, spec, table, rows[num_steps]), folder / file)
                yield _entry('denoise', file, spec, prompt_bucket=bucket, num_steps=num_steps)


def _entry(
    stage: str,
    file: str,
    spec: StageSpec,
    *,
    prompt_bucket: int | None = None,
    num_steps: int | None = None,
) -> EngineEntry:
    return EngineEntry(
        stage=stage,  # type: ignore[arg-type]
        backend='onnxruntime',
        precision='fp32',
        file=file,
        inputs=spec.inputs,
        outputs=spec.outputs,
        prompt_bucket=prompt_bucket,
        num_steps=num_steps,
    )
