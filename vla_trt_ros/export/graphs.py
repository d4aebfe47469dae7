"""The ONNX graphs of a bundle by stage, bucket and step count, and what its network is fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vla_trt_ros.backends.base import Array
from vla_trt_ros.bundle import Bundle, EngineEntry
from vla_trt_ros.config import PlatformConfig, Precision, StageChoice
from vla_trt_ros.datatypes import Observation
from vla_trt_ros.errors import BundleError
from vla_trt_ros.policies.pi05.engines import read_config
from vla_trt_ros.policies.pi05.policy import Pi05Policy
from vla_trt_ros.policies.pi05.spec import StageSpec, denoise_spec, prefix_spec, vision_spec

GraphKey = tuple[int | None, int | None]
"""Prompt bucket and step count; None where the stage has none."""


def graphs_of(bundle: Bundle, stage: str, precision: str) -> dict[GraphKey, Path]:
    """Portable ONNX of one stage and precision: its sources, and what ONNX Runtime runs.

    Empty where the bundle holds none.
    """
    found: dict[GraphKey, Path] = {}
    for engine in bundle.manifest.engines:
        if (engine.stage, engine.backend, engine.precision) == (stage, 'onnxruntime', precision):
            found[engine.prompt_bucket, engine.num_steps] = bundle.file(engine.file)
    for source in bundle.manifest.sources:
        if (source.stage, source.precision) == (stage, precision):
            found[source.prompt_bucket, source.num_steps] = bundle.file(source.file)
    return found


def float_graphs(bundle: Bundle, stage: str) -> dict[GraphKey, Path]:
    """The graphs that others are made from: fp32, else bf16. BundleError if there are neither."""
    found = graphs_of(bundle, stage, 'fp32') or graphs_of(bundle, stage, 'bf16')
    if not found:
        raise BundleError(
            f'bundle {bundle.name!r} holds no fp32 and no bf16 ONNX of {stage}; export it again '
            'with --precision bf16.'
        )
    return found


def stage_spec_of(bundle: Bundle, stage: str, bucket: int | None, activation: str) -> StageSpec:
    """What spec.py says of a stage of ``bundle``'s network."""
    config = read_config(bundle)
    if stage == 'vision' or bucket is None:
        return vision_spec(config, activation)
    return (prefix_spec if stage == 'prefix' else denoise_spec)(config, bucket, activation)


def network_inputs(
    bundle: Bundle, observations: Sequence[Observation], seed: int = 0
) -> list[dict[str, Array]]:
    """What the network reads for each observation: pixels, tokens, prefix_mask and noise.

    The policy's own preprocessing makes them, as at run time; no engine is loaded.
    """
    policy = Pi05Policy(_without_engines(bundle), _NOTHING_RUNS, seed=seed)
    try:
        return [policy.network_inputs(observation) for observation in observations]
    finally:
        policy.close()


_NULL = StageChoice('null', 'fp32')
_NOTHING_RUNS = PlatformConfig('shapes', 'no engine runs', 'cpu', _NULL, _NULL, _NULL, threads=1)


def _without_engines(bundle: Bundle) -> Bundle:
    """``bundle`` with a null engine for each that its config promises."""
    config = read_config(bundle)
    entries = [_null('vision', vision_spec(config), bundle)]
    for bucket in config.prompt_buckets:
        entries.append(_null('prefix', prefix_spec(config, bucket), bundle, bucket))
        entries += [
            _null('denoise', denoise_spec(config, bucket), bundle, bucket, steps)
            for steps in config.num_steps
        ]
    return replace(bundle, manifest=replace(bundle.manifest, engines=tuple(entries)))


def _null(
    stage: str,
    spec: StageSpec,
    bundle: Bundle,
    bucket: int | None = None,
    num_steps: int | None = None,
) -> EngineEntry:
    precision: Precision = 'fp32'
    return EngineEntry(
        stage=stage,  # type: ignore[arg-type]
        backend='null',
        precision=precision,
        file=bundle.manifest.tokenizer,  # never read
        inputs=spec.inputs,
        outputs=spec.outputs,
        prompt_bucket=bucket,
        num_steps=num_steps,
    )
