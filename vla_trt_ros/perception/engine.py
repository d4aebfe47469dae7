"""The one engine of a detector or classifier."""

from __future__ import annotations

from vla_trt_ros.backends.base import Array, Engine, EngineSource
from vla_trt_ros.backends.registry import load_engine
from vla_trt_ros.bundle import Bundle, EngineEntry, SourceEntry
from vla_trt_ros.config import PlatformConfig
from vla_trt_ros.errors import BundleError


def open_engine(
    bundle: Bundle, stage: str, platform: PlatformConfig, threads: int
) -> tuple[Engine, Array, Array]:
    """The engine that ``platform`` chooses for ``stage``, with its input and output arrays.

    BundleError where the bundle has none for it, BackendError where it does not load.
    """
    choice = platform.stage(stage)
    if choice.backend == 'onnx_graph':  # it reads the portable graph itself
        (graph,) = bundle.sources(stage, choice.precision)
        return _load(bundle, stage, graph, choice.backend, threads)
    entries = bundle.engines(stage, choice.backend, choice.precision)
    fitting = [e for e in entries if e.target in ('any', platform.target)]
    if not fitting:
        raise BundleError(
            f'bundle {bundle.name!r}: its {stage} engines are for '
            f'{", ".join(sorted({e.target for e in entries}))}, platform {platform.name} is '
            f'{platform.target}: run vla-trt build --bundle {bundle.path} --platform '
            f'{platform.name}.'
        )
    return _load(bundle, stage, fitting[0], choice.backend, threads)


def _load(
    bundle: Bundle, stage: str, entry: EngineEntry | SourceEntry, backend: str, threads: int
) -> tuple[Engine, Array, Array]:
    source = EngineSource(
        name=f'{stage} of {bundle.name}',
        file=bundle.file(entry.file),
        inputs=entry.inputs,
        outputs=entry.outputs,
        precision=entry.precision,
        threads=threads,
    )
    buffers: dict[str, Array] = {}
    engine = load_engine(backend, source, buffers)
    return engine, buffers[entry.inputs[0].name], buffers[entry.outputs[0].name]
