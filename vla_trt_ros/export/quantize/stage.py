"""Every graph of one stage at another precision, with one weight file between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.precision import check_stage
from vla_trt_ros.export.quantize.compute import compute_in
from vla_trt_ros.export.quantize.cpu_int8 import CpuInt8
from vla_trt_ros.export.quantize.draft import open_draft
from vla_trt_ros.export.quantize.halves import store_halves
from vla_trt_ros.export.quantize.qdq import Quantizer
from vla_trt_ros.export.quantize.ranges import Ranges
from vla_trt_ros.export.quantize.store import WeightStore


@dataclass(frozen=True, slots=True)
class QuantizedStage:
    """What was made."""

    stage: str
    precision: str
    compute: str
    """Dtype of what is not quantised."""
    boundary: str
    """Dtype of image_tokens, keys and values at the graph's inputs and outputs."""
    quantized: int
    """GEMM weights that are quantised."""
    smoothed: int
    """How many of them have their activation's channels scaled (SmoothQuant, int8 alone)."""
    kept: tuple[str, ...]
    """GEMM weights that are not, and why."""
    weight_bytes: int
    """Size of the weight file."""


def quantize_stage(
    stage: str,
    precision: str,
    graphs: Mapping[Path, Path],
    weights: Path,
    *,
    ranges: Ranges | None = None,
    cpu: bool = False,
    smooth: bool = True,
    half: bool = False,
) -> QuantizedStage:
    """Write ``graphs`` (source .onnx -> .onnx to make) at ``precision``.

    Sources are float32 or bfloat16 graphs of ``stage`` with opset 20 or later; their large
    weights may be external. ``weights`` is the new weight file, in the folder of the new graphs,
    which share it. ``ranges`` come from calibration and serve every bucket and step count;
    needed by rows that are ``calibrated``. ``cpu`` makes the graph that ONNX Runtime runs on a
    CPU, float32 around its GEMMs, which needs no ranges (cpu_int8.py). ``smooth`` allows
    SmoothQuant where it pays (int8). ``half`` stores as float16 what it holds exactly of float32
    weights.

    ConfigError for an unknown precision, one that is refused on the stage, or ranges that are
    missing; BundleError for NaN or Inf in a weight and for a GEMM that calibration did not see.
    """
    row = check_stage(stage, precision)
    compute, boundary = row.compute, row.boundary
    if cpu:
        if row.cpu_compute is None:
            raise ConfigError(f'{precision} graphs do not run on a CPU; choose int8 or fp32.')
        compute = boundary = row.cpu_compute
    if not graphs:
        raise ConfigError(f'{stage}: no graph was given to quantise; export the stage first.')
    quantizer: Quantizer | CpuInt8 | None = None
    if row.quantized:
        quantizer = CpuInt8() if cpu else Quantizer(row, compute, ranges, smooth=smooth)
    found: tuple[int, int, tuple[str, ...]] = (0, 0, ())
    with WeightStore(weights) as store:
        for source, out in graphs.items():
            draft = open_draft(source)
            compute_in(draft, stage, compute, boundary)
            if quantizer:
                found = quantizer.apply(draft, stage)
            if half:
                store_halves(draft)
            draft.write(out, store)
    return QuantizedStage(stage, precision, compute, boundary, *found, weights.stat().st_size)
