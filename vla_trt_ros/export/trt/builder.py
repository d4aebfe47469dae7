"""One ONNX file -> one TensorRT plan, strongly typed: the graph says every precision."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import load

from vla_trt_ros.backends.trt_module import TensorRT
from vla_trt_ros.errors import BackendError
from vla_trt_ros.export.trt.attention import is_half, unfold_attention
from vla_trt_ros.export.trt.layer_log import LayerLog, LogReader
from vla_trt_ros.export.trt.targets import set_target

RECIPE = 1
"""Raised when this file or attention.py change what an engine becomes."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build."""

    name: str
    """For messages: 'prefix, 200 tokens'."""
    precision: str
    target: str
    """'sm_120'."""
    workspace_bytes: int = 0
    """Limit of scratch memory; 0: the builder's own default, all there is."""
    timing_cache: Path | None = None
    """Read if it is there, and written: kernels timed once are not timed again."""


@dataclass(frozen=True, slots=True)
class BuildFacts:
    """What came of it."""

    seconds: float
    plan_bytes: int
    peak_memory_bytes: int
    log: LayerLog


def build_plan(onnx: Path, plan: Path, options: BuildOptions, trt: TensorRT) -> BuildFacts:
    """Build ``onnx`` and write the engine to ``plan``.

    BackendError with the builder's own words and a remedy if it refuses; OSError if ``plan``
    cannot be written.
    """
    module, begin = trt.module, time.monotonic()
    reader = LogReader()
    trt.logger.errors.clear()
    trt.listen(reader)
    try:
        builder = module.Builder(trt.logger)
        network = builder.create_network(_flags(module))
        _parse(module, network, onnx, options, trt)
        _keep_float_attention(module, network)
        config = builder.create_builder_config()
        set_target(module, config, options.target)
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
        if options.workspace_bytes:
            config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        _read_timing_cache(config, options.timing_cache)
        try:
            serialized = builder.build_serialized_network(network, config)
        except MemoryError as error:
            raise BackendError(refusal(options, trt, 'out of memory')) from error
        if serialized is None:
            raise BackendError(refusal(options, trt, trt.last_errors()))
        plan.write_bytes(memoryview(serialized))
        _write_timing_cache(config, options.timing_cache)
        size = int(serialized.nbytes)
    finally:
        trt.listen(None)
    return BuildFacts(time.monotonic() - begin, size, peak_memory_bytes(), reader.log)


def refusal(options: BuildOptions, trt: TensorRT, said: str) -> str:
    """The builder's words with the remedy that fits them."""
    low = said.lower()
    if any(word in low for word in ('out of memory', 'outofmemory', 'bad_alloc', 'memory_alloc')):
        remedy = (
            'Memory ran out: close other programs, give --workspace a smaller limit, or build one '
            'stage at a time with --stage'
        )
    elif 'datatypes' in low or 'cannot compile operation' in low:
        remedy = (
            f'{options.target} does not compute {options.precision}: choose another precision in '
            'the platform file'
        )
    elif 'workspace' in low or 'no implementation' in low or 'find any implementation' in low:
        remedy = 'Give --workspace a larger limit, or leave it out'
    else:
        remedy = 'Export the bundle again; if that does not help, report it with this message'
    return (
        f'{options.name}: {trt.title} refuses {options.precision} for {options.target}: '
        f'{said or "no reason given"}. {remedy}.'
    )


def peak_memory_bytes() -> int:
    """Largest resident size that this process had."""
    # Not getrusage: its figure starts with what the parent had when it started this process.
    for line in Path('/proc/self/status').read_text(encoding='ascii').splitlines():
        if line.startswith('VmHWM:'):
            return int(line.split()[1]) * 1024
    return 0


def _flags(module: Any) -> int:
    flags = module.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED)


def _parse(module: Any, network: Any, onnx: Path, options: BuildOptions, trt: TensorRT) -> None:
    parser = module.OnnxParser(network, trt.logger)
    try:
        model = load(str(onnx), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and OSError
        raise BackendError(f'{onnx} is no ONNX file ({error}); export it again.') from error
    if is_half(model):
        unfold_attention(model, 'operator' if hasattr(module, 'IAttention') else 'expanded')
    # The path says where the external weights are; the graph itself is the one in memory.
    if parser.parse(model.SerializeToString(), str(onnx)):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    said = '; '.join(f'{e.node_operator()} {e.node_name()}: {e.desc()}'.strip() for e in errors)
    raise BackendError(refusal(options, trt, said or trt.last_errors()))


def _keep_float_attention(module: Any, network: Any) -> None:
    """Let attentions that no fused kernel does (float32) be split into plain layers."""
    kind = getattr(module.LayerType, 'ATTENTION_INPUT', None)
    if kind is None:
        return
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type == kind and layer.get_input(0).dtype == module.DataType.FLOAT:
            layer.__class__ = module.IAttentionInputLayer
            layer.attention.decomposable = True


def _read_timing_cache(config: Any, path: Path | None) -> None:
    if path is None:
        return
    data = path.read_bytes() if path.is_file() else b''
    config.set_timing_cache(config.create_timing_cache(data), False)


def _write_timing_cache(config: Any, path: Path | None) -> None:
    cache = config.get_timing_cache() if path is not None else None
    if cache is not None and path is not None:
        aside = path.with_name(f'.{path.name}.part')
        aside.write_bytes(memoryview(cache.serialize()))
        aside.replace(path)
