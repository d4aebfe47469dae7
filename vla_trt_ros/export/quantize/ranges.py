"""What calibration tells quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vla_trt_ros.datatypes import Float32Array


@dataclass(frozen=True, slots=True)
class ActivationRange:
    """What one GEMM's input was seen to hold."""

    amax: float
    """Largest magnitude."""
    percentile: float
    """99.99th percentile of the magnitudes, the mean over frames."""
    channels: Float32Array
    """Largest magnitude of each input channel, float32 [K]."""


Ranges = Mapping[str, ActivationRange]
"""GEMM key (`quantize.gemms.weight_key`) -> range. The key depends on the weight alone, so one
calibration serves every prompt bucket and step count."""
