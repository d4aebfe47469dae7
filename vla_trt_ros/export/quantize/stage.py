"""Every graph of one stage at another precision, with one weight file between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vla_trt_ros.export.calibration import Ranges
from vla_trt_ros.export.precision import check_stage


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
    """GEMMs whose weights are quantised, in the first graph."""
    kept: tuple[str, ...]
    """GEMMs with constant weights that are not, and why."""
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
) -> QuantizedStage:
    """Write ``graphs`` (source .onnx -> .onnx to make) at ``precision``.

    Sources are float32 or bfloat16 graphs of ``stage`` with opset 20 or later; their large
    weights may be external. ``weights`` is the new weight file, in the folder of the new graphs,
    which share it. ``ranges`` come from calibration and serve every bucket and step count;
    needed by rows that are ``calibrated``. ``compute`` overrides the row's compute and boundary
    dtype ('float32' makes the int8 graph that ONNX Runtime runs).

    ConfigError for an unknown precision, one that is refused on the stage, or ranges that are
    missing; BundleError for NaN or Inf in a weight and for a GEMM that calibration did not see.
    """
    check_stage(stage, precision)
    raise NotImplementedError
