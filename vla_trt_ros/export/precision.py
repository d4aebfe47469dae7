"""The precisions that a stage can be exported at: one table, a row each.

What a processor can compute is config.py's table; this one says what a precision is made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vla_trt_ros.config import PERCEPTION_STAGES, STAGES, precisions_of, targets
from vla_trt_ros.errors import ConfigError

_RESIDUAL = (
    "Gemma's residual stream leaves float16's range (65504) and turns to Inf; choose bf16, or fp8 "
    'or int8 where the device has them.'
)


@dataclass(frozen=True, slots=True)
class PrecisionRow:
    """One precision. Dtypes are named as NumPy and ml_dtypes name them."""

    name: str
    weights: str
    """Dtype of the GEMM weights."""
    activations: str
    """Dtype that GEMM inputs are rounded to; the compute dtype where they are not."""
    compute: str
    """Dtype of everything else: residual, attention, biases, scales. Norms and rotary embedding
    are float32 in all rows."""
    boundary: str
    """Dtype of image_tokens, keys and values. Half precisions agree on bfloat16, so that the
    stages of a chain may differ in precision."""
    scales: str
    """How many scales there are, for people."""
    opset: int
    """Smallest ONNX opset that has these types."""
    calibrated: bool = False
    """Needs the ranges of activations (export/calibration.py)."""
    cpu_compute: str | None = None
    """Compute dtype of the graph that ONNX Runtime runs on a CPU; None: it does not."""
    refused: dict[str, str] = field(default_factory=dict)
    """Stage -> why this precision is not safe there."""

    @property
    def quantized(self) -> bool:
        """Whether GEMM weights are stored in fewer bits than the compute dtype."""
        return self.weights != self.compute

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages that this precision is safe on."""
        return tuple(s for s in STAGES if s not in self.refused)

    @property
    def smallest_gpu(self) -> str:
        """The lowest compute capability that computes it, as 'sm_86'."""
        able = [t for t in targets() if t != 'cpu' and self.name in precisions_of(t)]
        return min(able, key=lambda t: int(t.removeprefix('sm_')))


_ROWS = (
    PrecisionRow(
        'fp32', 'float32', 'float32', 'float32', 'float32', 'none', 20, cpu_compute='float32'
    ),
    PrecisionRow(
        'fp16',
        'float16',
        'float16',
        'float16',
        'bfloat16',
        'none',
        20,
        refused={'prefix': _RESIDUAL},
    ),
    PrecisionRow('bf16', 'bfloat16', 'bfloat16', 'bfloat16', 'bfloat16', 'none', 20),
    PrecisionRow(
        'fp8',
        'float8_e4m3fn',
        'float8_e4m3fn',
        'bfloat16',
        'bfloat16',
        'weights per channel, activations per tensor',
        20,
        calibrated=True,
    ),
    PrecisionRow(
        'int8',
        'int8',
        'int8',
        'bfloat16',
        'bfloat16',
        'weights per channel, activations per tensor',
        20,
        calibrated=True,
        cpu_compute='float32',
    ),
    PrecisionRow(
        'int4', 'int4', 'bfloat16', 'bfloat16', 'bfloat16', 'weights per block of 128 along K', 21
    ),
    PrecisionRow(
        'nvfp4',
        'float4_e2m1fn',
        'float4_e2m1fn',
        'bfloat16',
        'bfloat16',
        'E4M3 per block of 16 along K, float32 per tensor; activation blocks at run time',
        23,
        calibrated=True,
    ),
)
PRECISIONS: dict[str, PrecisionRow] = {row.name: row for row in _ROWS}


def precision_row(name: str) -> PrecisionRow:
    """The row of ``name``; ConfigError lists the names where there is none."""
    try:
        return PRECISIONS[name]
    except KeyError:
        raise ConfigError(f'precision {name!r} is none of {", ".join(PRECISIONS)}.') from None


def check_stage(stage: str, precision: str) -> PrecisionRow:
    """The row of ``precision``; ConfigError says why it is refused on ``stage``."""
    row = precision_row(precision)
    if stage in PERCEPTION_STAGES:  # their graphs say what is safe: export/perception/half.py
        return row
    if stage not in STAGES:
        raise ConfigError(f'stage {stage!r} is none of {", ".join(STAGES)}.')
    if stage in row.refused:
        raise ConfigError(f'{stage}: {precision} is refused: {row.refused[stage]}')
    return row


def check_target(precision: str, target: str) -> PrecisionRow:
    """The row of ``precision``; ConfigError unless ``target`` ('cpu', 'sm_87') computes it."""
    row = precision_row(precision)
    able = precisions_of(target)
    if precision not in able:
        raise ConfigError(
            f'{precision} does not run on {target}; choose of {", ".join(able)}, or a GPU from '
            f'{row.smallest_gpu} on.'
        )
    return row
