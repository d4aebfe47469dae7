"""Ranges of the activations that enter quantised GEMMs, from frames that a robot saw."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from vla_trt_ros.backends.base import Array
from vla_trt_ros.bundle import Bundle
from vla_trt_ros.config import STAGES
from vla_trt_ros.datatypes import Float32Array, Float64Array, Observation
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.evaluate import Graph, load_graph
from vla_trt_ros.export.frames import FEWEST
from vla_trt_ros.export.graphs import GraphKey, float_graphs, network_inputs
from vla_trt_ros.export.quantize.compute import widen
from vla_trt_ros.export.quantize.draft import open_draft
from vla_trt_ros.export.quantize.gemms import find_gemms, weight_key
from vla_trt_ros.export.quantize.ranges import ActivationRange, Ranges
from vla_trt_ros.export.quantize.store import WeightStore

PERCENTILE = 99.99


def collect_ranges(
    bundle: Bundle,
    observations: Sequence[Observation],
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Ranges]:
    """Stage -> ranges: ``observations`` through the policy's own preprocessing and the float
    graphs of ``bundle``, the loop at its largest step count.

    ConfigError for fewer than 8 observations, and where a GEMM's input was NaN or Inf.
    """
    if len(observations) < FEWEST:
        raise ConfigError(
            f'{len(observations)} frames are too few to calibrate on; give {FEWEST} at least.'
        )
    seen: dict[str, dict[str, _Seen]] = {stage: {} for stage in STAGES}
    inputs = network_inputs(bundle, observations)
    with tempfile.TemporaryDirectory(prefix='calibration.') as folder:
        for stage in STAGES:  # a stage at a time: only its weights are in memory
            probes = _Probes(bundle, stage, Path(folder))
            for i, tensors in enumerate(inputs):
                report(f'calibration of {stage}: frame {i + 1} of {len(inputs)}')
                probe = probes.of(tensors)
                outputs = probe.graph.run(tensors)
                for key, name in probe.taps:
                    seen[stage].setdefault(key, _Seen()).add(outputs[name], stage)
                tensors.update({n: outputs[n] for n in probe.outputs})
    return {stage: {key: s.range() for key, s in found.items()} for stage, found in seen.items()}


@dataclass(slots=True)
class _Seen:
    channels: Float32Array | None = None
    percentiles: list[float] = field(default_factory=list)

    def add(self, x: Array, stage: str) -> None:
        size = np.abs(x.reshape(-1, x.shape[-1])).astype(np.float32)
        if not np.isfinite(size).all():
            raise ConfigError(
                f'{stage}: NaN or Inf in the float32 network itself; its weights are damaged.'
            )
        loudest = size.max(axis=0)
        self.channels = loudest if self.channels is None else np.maximum(self.channels, loudest)
        self.percentiles.append(float(np.percentile(size, PERCENTILE)))

    def range(self) -> ActivationRange:
        assert self.channels is not None
        return ActivationRange(
            float(self.channels.max()), float(np.mean(self.percentiles)), self.channels
        )


@dataclass(frozen=True, slots=True)
class _Probe:
    graph: Graph
    taps: tuple[tuple[str, str], ...]
    """GEMM key and the activation that enters it."""
    outputs: tuple[str, ...]


class _Probes:
    """The float32 graphs of a stage with every GEMM's input as a further output."""

    def __init__(self, bundle: Bundle, stage: str, folder: Path) -> None:
        self._graphs, self._stage, self._folder = float_graphs(bundle, stage), stage, folder
        self._probes: dict[GraphKey, _Probe] = {}

    def of(self, tensors: Mapping[str, Array]) -> _Probe:
        """The probe for a prompt of this length."""
        bucket = None if self._stage == 'vision' else tensors['tokens'].shape[1]
        steps = max((n for b, n in self._graphs if n is not None and b == bucket), default=None)
        key = (bucket, steps)
        if key not in self._probes:
            self._probes[key] = self._make(self._graphs[key])
        return self._probes[key]

    def _make(self, path: Path) -> _Probe:
        draft = open_draft(path)
        widen(draft)
        graph = draft.model.graph
        outputs = tuple(v.name for v in graph.output)
        keys: dict[str, str] = {}
        taps = []
        for gemm in find_gemms(draft, self._stage):
            if gemm.kept:
                continue
            if gemm.weight not in keys:
                keys[gemm.weight] = weight_key(gemm.matrix(draft))
            taps.append((keys[gemm.weight], gemm.activation))
        for name in dict.fromkeys(name for _, name in taps):
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        out = self._folder / path.name
        with WeightStore(self._folder / f'{path.stem}.weights') as store:
            draft.write(out, store)
        return _Probe(load_graph(out), tuple(taps), outputs)


def summary(ranges: Mapping[str, Ranges]) -> dict[str, dict[str, Float64Array]]:
    """Per stage, for people: largest magnitude and percentile of every GEMM, in order."""
    return {
        stage: {
            'amax': np.array([r.amax for r in found.values()]),
            'percentile': np.array([r.percentile for r in found.values()]),
        }
        for stage, found in ranges.items()
    }
