"""The engines of a bundle, checked against spec.py, loaded and bound to one set of buffers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import cast

from vla_trt_ros.backends.base import (
    Array,
    Buffers,
    Engine,
    EngineSource,
    OverlapEngine,
    Shared,
)
from vla_trt_ros.backends.registry import load_engine
from vla_trt_ros.bundle import Bundle, EngineEntry
from vla_trt_ros.config import STAGES, PlatformConfig
from vla_trt_ros.errors import BundleError, ConfigError
from vla_trt_ros.policies.pi05.chains import Chain, Engines
from vla_trt_ros.policies.pi05.spec import (
    Pi05Config,
    StageSpec,
    denoise_spec,
    prefix_spec,
    vision_spec,
)
from vla_trt_ros.strict_yaml import build

ACTIVATIONS = ('float32', 'float16', 'bfloat16')


Make = Callable[[str, int | None, int | None, Buffers], Engine]
"""Gives the engine of a stage, prompt bucket and step count, bound to buffers."""


def read_config(bundle: Bundle) -> Pi05Config:
    """The network's sizes; BundleError where they are not a Pi0.5 network's."""
    try:
        return build(Pi05Config, bundle.config, f'{bundle.path}/manifest.json: config')
    except ConfigError as error:
        raise BundleError(f'{error} Export the bundle again.') from error


def load_engines(
    bundle: Bundle,
    config: Pi05Config,
    platform: PlatformConfig,
    stack: ExitStack,
    *,
    overlap: bool = False,
) -> Engines:
    """All engines that ``platform`` chooses; ``stack`` closes them. With ``overlap`` two chunks
    can be in them at once (`Engines.beside`): ConfigError where a stage's backend cannot.

    Buffers are shared by name: the vision's output is every prefix's input, and a bucket's keys
    and values are written by its prefix and read in place by its denoise engines. BundleError if
    an engine is missing or does not fit spec.py, BackendError if it does not load.
    """

    def make(stage: str, bucket: int | None, num_steps: int | None, buffers: Buffers) -> Engine:
        entry = pick(stage, bucket, num_steps)
        source = EngineSource(
            name=describe(entry),
            file=None if entry.backend == 'null' else bundle.file(entry.file),
            inputs=entry.inputs,
            outputs=entry.outputs,
            precision=entry.precision,
            threads=platform.engine_threads,
            stage=entry.stage,
            prompt_bucket=entry.prompt_bucket,
            num_steps=entry.num_steps,
            shared=together,
        )
        return stack.enter_context(load_engine(entry.backend, source, buffers))

    def chosen(stage: str) -> dict[tuple[int | None, int | None], EngineEntry]:
        choice = platform.stage(stage)
        if choice.backend == 'null':
            # Shapes are all it needs. Of several engines the first listed counts (the last in the
            # dictionary below), so that stages agree on the dtype between them.
            held = [e for e in bundle.manifest.engines if e.stage == stage]
            found = tuple(replace(e, backend='null') for e in reversed(held))
        else:
            found = _for_target(
                bundle, bundle.engines(stage, choice.backend, choice.precision), platform
            )
        for entry in found:
            _check(entry, config)
        return {(e.prompt_bucket, e.num_steps): e for e in found}

    def pick(stage: str, bucket: int | None, num_steps: int | None) -> EngineEntry:
        try:
            return entries[stage][bucket, num_steps]
        except KeyError:
            raise BundleError(
                f'bundle {bundle.name!r} lacks the {stage} engine for {bucket} prompt tokens and '
                f'{num_steps} steps, which its config promises; export it again.'
            ) from None

    if overlap:
        _check_overlap(platform)
    together: dict[str, Shared] = {}
    stack.callback(_close_all, together)
    entries = {stage: chosen(stage) for stage in STAGES}

    engines = _wire(config, make, {})
    if overlap:
        engines = replace(engines, beside=_beside(config, engines, stack))
    for part in together.values():
        part.load()
    return engines


def _wire(config: Pi05Config, make: Make, shared: dict[str, Array]) -> Engines:
    """Engines that ``make`` gives, on ``shared`` buffers and those that they add."""
    vision = make('vision', None, None, shared)
    chains = {}
    for bucket in config.prompt_buckets:
        buffers = dict(shared)
        prefix = make('prefix', bucket, None, buffers)
        denoise = {n: make('denoise', bucket, n, buffers) for n in config.num_steps}
        # The first bucket's noise and actions serve all: their shapes do not depend on it.
        shared |= {name: buffers[name] for name in ('noise', 'actions')}
        chains[bucket] = Chain(prefix, denoise, buffers['tokens'][0], buffers['prefix_mask'][0])
    every: list[Engine] = [vision]
    for chain in chains.values():
        every += [chain.prefix, *chain.denoise.values()]
    return Engines(
        vision,
        chains,
        shared['pixels'],
        shared['noise'],
        shared['actions'],
        on_gpu=all(getattr(engine, 'on_gpu', False) for engine in every),
        compacts=any(getattr(engine, 'compacts', False) for engine in every),
    )


def _beside(config: Pi05Config, first: Engines, stack: ExitStack) -> Engines:
    def twin(stage: str, bucket: int | None, num_steps: int | None, buffers: Buffers) -> Engine:
        engine: Engine = first.vision
        if bucket is not None:
            chain = first.chains[bucket]
            engine = chain.prefix if num_steps is None else chain.denoise[num_steps]
        return stack.enter_context(cast(OverlapEngine, engine).beside(buffers))

    return _wire(config, twin, {'pixels': first.pixels})


def _check_overlap(platform: PlatformConfig) -> None:
    for stage in STAGES:
        backend = platform.stage(stage).backend
        if backend != 'cuda_graph':
            raise ConfigError(
                f'overlap needs every stage on cuda_graph, which keeps two chunks apart; {stage} '
                f'of platform {platform.name} is on {backend}. Set overlap to false, or choose a '
                'platform such as h200.'
            )


def _close_all(together: dict[str, Shared]) -> None:
    for part in together.values():
        part.close()


def _for_target(
    bundle: Bundle, entries: tuple[EngineEntry, ...], platform: PlatformConfig
) -> tuple[EngineEntry, ...]:
    """Those of ``entries`` that run on the platform's GPU; a bundle may hold several's."""
    found = tuple(e for e in entries if e.target in ('any', platform.target))
    if not found:
        built_for = ', '.join(sorted({e.target for e in entries}))
        raise BundleError(
            f'bundle {bundle.name!r}: the {entries[0].stage} engines are for {built_for}, '
            f'platform {platform.name} is {platform.target}: run vla-trt build --bundle '
            f'{bundle.path} --platform {platform.name}.'
        )
    return found


def describe(entry: EngineEntry) -> str:
    """For messages: 'denoise, 64 tokens, 10 steps'."""
    parts: list[str] = [entry.stage]
    if entry.prompt_bucket is not None:
        parts.append(f'{entry.prompt_bucket} tokens')
    if entry.num_steps is not None:
        parts.append(f'{entry.num_steps} steps')
    return ', '.join(parts)


def stage_spec(config: Pi05Config, entry: EngineEntry, activation: str) -> StageSpec:
    """What spec.py says of the stage of ``entry``."""
    if entry.stage == 'vision':
        return vision_spec(config, activation)
    if entry.prompt_bucket is None:
        raise BundleError(f'{describe(entry)}: prompt_bucket is missing; export the bundle again.')
    if entry.stage == 'prefix':
        return prefix_spec(config, entry.prompt_bucket, activation)
    return denoise_spec(config, entry.prompt_bucket, activation)


def _check(entry: EngineEntry, config: Pi05Config) -> None:
    found = StageSpec(entry.inputs, entry.outputs)
    fits = any(found == stage_spec(config, entry, activation) for activation in ACTIVATIONS)
    if not fits:
        raise BundleError(
            f'{describe(entry)}: its tensors {_list(found)} are not those of this network, '
            f'{_list(stage_spec(config, entry, "float32"))}; export the bundle again.'
        )


def _list(spec: StageSpec) -> str:
    return ', '.join(f'{t.name} {t.dtype}{list(t.shape)}' for t in (*spec.inputs, *spec.outputs))
