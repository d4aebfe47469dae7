"""One precision for a whole policy, where its bundle has it."""

from __future__ import annotations

from dataclasses import replace

from vla_trt_ros.bundle import Bundle
from vla_trt_ros.config import STAGES, PlatformConfig, StageChoice
from vla_trt_ros.errors import ConfigError

_FALLBACK = 'fp32'


def at_precision(platform: PlatformConfig, bundle: Bundle, precision: str) -> PlatformConfig:
    """``platform`` with ``precision`` in every stage that ``bundle`` has it for, fp32 in the rest;
    backends stay. ConfigError where no stage has it.
    """
    held = {
        (e.stage, e.precision)
        for e in bundle.manifest.engines
        if e.backend == platform.stage(e.stage).backend and e.target in ('any', platform.target)
    }
    if not any(p == precision for _, p in held):
        there = ', '.join(sorted({p for _, p in held})) or 'nothing'
        raise ConfigError(
            f'--precision {precision}: bundle {bundle.name!r} holds {there} for platform '
            f'{platform.name}; choose of these, or export it with --precision {precision}.'
        )
    choices: dict[str, StageChoice] = {}
    for stage in STAGES:
        chosen = precision if (stage, precision) in held else _FALLBACK
        choices[stage] = replace(platform.stage(stage), precision=chosen)  # type: ignore[arg-type]
    return replace(
        platform,
        vision=choices['vision'],
        prefix=choices['prefix'],
        denoise=choices['denoise'],
    )


def precision_label(platform: PlatformConfig) -> str:
    """'fp32', or of a mixture 'int8+fp32', in the order of the stages."""
    return '+'.join(dict.fromkeys(platform.stage(stage).precision for stage in STAGES))


def stages_of(platform: PlatformConfig) -> dict[str, str]:
    """Stage to what runs it: {'vision': 'onnxruntime fp32', ...}."""
    choices = {stage: platform.stage(stage) for stage in STAGES}
    return {stage: f'{c.backend} {c.precision}' for stage, c in choices.items()}
