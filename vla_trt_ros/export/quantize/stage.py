"""Every graph of one stage at another precision, with one weight file between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.precision import check_stage
from vla_trt_ros.export.quantize.compute import compute_in
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
    compute: str | None = None,
    smooth: bool = True,
    half: bool = False,
) -> QuantizedStage:
    """Write ``graphs`` (source .onnx -> .onnx to make) at ``precision``.

    Sources are float32 or bfloat16 graphs of ``stage`` with opset 20 or later; their large
    weights may be external. ``weights`` is the new weight file, in the folder of the new graphs,
    which share it. ``ranges`` come from calibration and serve every bucket and step count;
    needed by rows that are ``calibrated``. ``compute`` overrides the row's compute and boundary
    dtype ('float32' makes the int8 graph that ONNX Runtime runs). ``smooth`` allows SmoothQuant
    where it pays (int8). ``half`` stores float32 weights that float16 holds exactly so.

    ConfigError for an unknown precision, one that is refused on the stage, or ranges that are
    missing; BundleError for NaN or Inf in a weight and for a GEMM that calibration did not see.
    """
    row = check_stage(stage, precision)
    boundary = compute if compute else row.boundary
    compute = compute or row.compute
    if not graphs:
        raise ConfigError(f'{stage}: no graph was given to quantise; export the stage first.')
    quantizer = Quantizer(row, compute, ranges, smooth=smooth) if row.quantized else None
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
