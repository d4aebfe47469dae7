"""Engines of a bundle for one platform: what is to be built and why, building it, entering it.

A plan's name holds a hash of all that it depends on, so a new one never takes the place of one
that the manifest names; it is written aside, renamed, and entered when it is whole. A build that
was interrupted leaves the bundle as it was, and finds what it had finished when it is run again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vla_trt_ros.backends.engine_file import (
    EngineKey,
    EngineRecord,
    read_record,
    record_path,
    write_record,
)
from vla_trt_ros.backends.trt_module import TensorRT
from vla_trt_ros.bundle import (
    Bundle,
    EngineEntry,
    SourceEntry,
    engine_key,
    open_bundle,
    sha256_of,
)
from vla_trt_ros.config import STAGES, PlatformConfig, Precision
from vla_trt_ros.errors import BackendError, BundleError, ConfigError, VlaError
from vla_trt_ros.export.bundle_writer import extend_bundle
from vla_trt_ros.export.precision import check_stage, check_target
from vla_trt_ros.export.trt.builder import RECIPE, BuildFacts, BuildOptions
from vla_trt_ros.export.trt.graph_facts import GraphFacts, graph_sha256, read_graph
from vla_trt_ros.export.trt.worker import build_apart
from vla_trt_ros.policies.pi05.engines import describe

FOLDER = 'engines'
_OVERHEAD = 16 << 20
"""Bytes of a plan besides its weights: kernels and tables."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which engines of a bundle; an empty collection means all there are."""

    stages: Collection[str] = ()
    precision: Precision | None = None
    """For every stage, in place of the platform file's."""
    prompt_tokens: Collection[int] = ()
    num_steps: Collection[int] = ()
    workspace_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One engine: its graph, where it goes, and why it has to be built ('' if it is there)."""

    name: str
    """'prefix, 200 tokens'."""
    source: SourceEntry
    facts: GraphFacts
    key: EngineKey
    entry: EngineEntry
    reason: str
    entered: bool
    """Whether the manifest names it already."""


Report = Callable[[Job, EngineRecord | None], None]
"""Hears of each job: with None before it is built, with the record when it is there."""


def choices(
    platform: PlatformConfig, wanted: Wanted, stages: Sequence[str] = STAGES
) -> dict[str, Precision]:
    """Stage -> precision to build; ``stages`` are the bundle's. ConfigError for an unknown stage,
    or if nothing is left.
    """
    for stage in wanted.stages:
        if stage not in stages:
            raise ConfigError(f'stage {stage!r} is none of {", ".join(stages)}.')
    found: dict[str, Precision] = {}
    for stage in wanted.stages or stages:
        choice = platform.stage(stage)
        if choice.backend == 'tensorrt' or wanted.precision:
            found[stage] = wanted.precision or choice.precision
    if not found:
        raise ConfigError(
            f'platform {platform.name} runs none of {", ".join(wanted.stages or stages)} on '
            'TensorRT: there is nothing to build (stages of cuda_graph come with vla-trt export '
            '--backend cuda_graph, onnx_graph runs the ONNX itself); to build all the same, name '
            'a --precision.'
        )
    return found


def plan_jobs(
    bundle: Bundle, precisions: dict[str, Precision], target: str, wanted: Wanted, trt: TensorRT
) -> list[Job]:
    """What `run_jobs` would do. ConfigError for a precision that the stage or the target refuses,
    BundleError for one that the bundle has no graphs of.
    """
    for stage, precision in precisions.items():
        check_target(precision, target)
        check_stage(stage, precision)
    jobs: list[Job] = []
    for stage, precision in precisions.items():
        jobs += [
            _job(bundle, source, target, wanted, trt)
            for source in bundle.sources(stage, precision)
            if source.prompt_bucket is None
            or not wanted.prompt_tokens
            or source.prompt_bucket in wanted.prompt_tokens
            if source.num_steps is None
            or not wanted.num_steps
            or source.num_steps in wanted.num_steps
        ]
    if not jobs:
        raise BundleError(
            f'bundle {bundle.name!r} has no graph of {", ".join(precisions)} for '
            f'{sorted(wanted.prompt_tokens)} prompt tokens and {sorted(wanted.num_steps)} steps.'
        )
    return jobs


def run_jobs(bundle: Bundle, jobs: Sequence[Job], trt: TensorRT, report: Report) -> None:
    """Build what has to be built, enter it in the bundle, remove what it replaces.

    Whatever was finished before an error is entered too. BackendError if the builder refuses,
    BundleError if the disk is full.
    """
    _check_disk(bundle, [job for job in jobs if job.reason])
    done: list[EngineEntry] = []
    try:
        for job in jobs:
            plan = bundle.file(job.entry.file)
            if job.reason:
                report(job, None)
                _build(bundle, job, plan, trt)
            if not job.entered:
                done.append(job.entry)
            report(job, read_record(plan))
    except VlaError:
        _enter(bundle, done)
        raise
    _enter(bundle, done)


def _job(bundle: Bundle, source: SourceEntry, target: str, wanted: Wanted, trt: TensorRT) -> Job:
    graph = bundle.file(source.file)
    facts = read_graph(graph)
    key = EngineKey(
        # `open_bundle` has compared every file with these hashes.
        onnx_sha256=graph_sha256(
            graph, facts, lambda p: _listed_sha256(bundle, p.relative_to(bundle.path).as_posix())
        ),
        precision=source.precision,
        flavour=trt.flavour,
        builder_version=trt.version,
        target=target,
        recipe=RECIPE,
        workspace_bytes=wanted.workspace_bytes,
    )
    entry = EngineEntry(
        stage=source.stage,
        backend='tensorrt',
        precision=source.precision,
        file=_plan_name(source, key),
        inputs=source.inputs,
        outputs=source.outputs,
        prompt_bucket=source.prompt_bucket,
        num_steps=source.num_steps,
        target=target,
    )
    entered = entry in bundle.manifest.engines
    reason = '' if _is_whole(bundle.file(entry.file), key) else _why(bundle, entry, key)
    return Job(describe(entry), source, facts, key, entry, reason, entered)


def _listed_sha256(bundle: Bundle, name: str) -> str:
    try:
        return bundle.manifest.files[name].sha256
    except KeyError:
        raise BundleError(
            f'{bundle.file(name)} holds weights but is not listed in the manifest; export the '
            'bundle again.'
        ) from None


def _plan_name(source: SourceEntry, key: EngineKey) -> str:
    numbers = [str(n) for n in (source.prompt_bucket, source.num_steps) if n is not None]
    stem = '_'.join([source.stage, *numbers])
    digest = hashlib.sha256(json.dumps(asdict(key)).encode()).hexdigest()
    return f'{FOLDER}/{key.target}/{stem}.{source.precision}.{digest[:8]}.plan'


def _is_whole(plan: Path, key: EngineKey) -> bool:
    """Whether ``plan`` is there, made of ``key``, and as it was written."""
    try:
        record = read_record(plan)
        return record.key == key and sha256_of(plan) == record.plan_sha256
    except (BackendError, OSError):
        return False


def _why(bundle: Bundle, entry: EngineEntry, key: EngineKey) -> str:
    for other in bundle.manifest.engines:
        if engine_key(other) == engine_key(entry):
            try:
                old = read_record(bundle.file(other.file))
            except BackendError:
                return 'record missing'
            return key.difference(old.key) or 'plan altered'
    return 'new'


def _check_disk(bundle: Bundle, jobs: Sequence[Job]) -> None:
    need = sum(job.facts.weight_bytes + _OVERHEAD for job in jobs)
    free = shutil.disk_usage(bundle.path).free
    if need > free:
        raise BundleError(
            f'{bundle.path}: {len(jobs)} engines take about {need / 1e9:.2f} GB, its disk has '
            f'{free / 1e9:.2f} GB left; free some, or build fewer: --stage, --prompt-tokens, '
            '--steps.'
        )


def _build(bundle: Bundle, job: Job, plan: Path, trt: TensorRT) -> None:
    plan.parent.mkdir(parents=True, exist_ok=True)
    for left_over in plan.parent.glob(f'.{plan.name}.*.part'):
        left_over.unlink()
    aside = plan.with_name(f'.{plan.name}.part')
    cache = plan.parent / f'timing.{trt.flavour}-{trt.version}.cache'
    options = BuildOptions(
        job.name, job.key.precision, job.key.target, job.key.workspace_bytes, cache
    )
    try:
        facts = build_apart(bundle.file(job.source.file), aside, options, trt)
        # The record first: a plan without one would be refused, a record alone is just ignored.
        write_record(plan, _record(job, aside, facts))
        aside.replace(plan)
    except OSError as error:
        raise BundleError(
            f'{plan} cannot be written ({error.strerror}); free space on its disk and run the '
            'command again: engines that are done are kept.'
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def _record(job: Job, plan: Path, facts: BuildFacts) -> EngineRecord:
    low = facts.log.low_precision
    return EngineRecord(
        stage=job.name,
        source=job.source.file,
        key=job.key,
        plan_sha256=sha256_of(plan),
        plan_bytes=facts.plan_bytes,
        seconds=round(facts.seconds, 2),
        peak_memory_bytes=facts.peak_memory_bytes,
        layers=facts.log.layers,
        attentions=job.facts.attentions,
        fused_attentions=facts.log.fused_attentions,
        low_precision_layers=None if low is None else max(low.values(), default=0),
        weights_bytes=facts.log.weights_bytes,
        activation_bytes=facts.log.activation_bytes,
    )


def _enter(bundle: Bundle, entries: Sequence[EngineEntry]) -> None:
    if not entries:
        return
    before = {e.file for e in bundle.manifest.engines}
    extend_bundle(bundle.path, engines=entries)
    after = {e.file for e in open_bundle(bundle.path).manifest.engines}
    for name in before - after:
        bundle.file(name).unlink(missing_ok=True)
        record_path(bundle.file(name)).unlink(missing_ok=True)
