"""Peaks of the devices that plans are made for, each with where the figures come from.

Another device is a YAML file with the fields of `Device`, given as ``--device FILE``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vla_trt_ros.config import Precision
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.strict_yaml import load_yaml


@dataclass(frozen=True, slots=True)
class Device:
    """The rates that floors on this device are made of."""

    name: str
    description: str
    target: str
    """As in a platform file: 'sm_87'."""
    tflops: dict[str, float]
    """Dense matrix products, 10^12 operations per second, by the precision computed in."""
    bandwidth: float
    """Of the device's memory, 10^9 bytes per second."""
    memory: float
    """10^9 bytes; on a Jetson the processor has its share of it."""
    source: str
    """Where the figures come from."""

    def __post_init__(self) -> None:
        for name, value in (*self.tflops.items(), ('bandwidth', self.bandwidth)):
            if not value > 0:
                raise ConfigError(f'{name} {value} must be above 0.')
        if not self.tflops:
            raise ConfigError('tflops is empty; give the peak of one precision at least.')
        unknown = set(self.tflops) - set(_COMPUTED_IN.values())
        if unknown:
            raise ConfigError(
                f'tflops: {sorted(unknown)[0]!r} is none of '
                f'{", ".join(dict.fromkeys(_COMPUTED_IN.values()))}.'
            )

    def rate(self, precision: Precision) -> float:
        """Operations per second of matrix products whose weights are in ``precision``."""
        computed_in = _COMPUTED_IN[precision]
        if computed_in not in self.tflops:
            able = [p for p, name in _COMPUTED_IN.items() if name in self.tflops]
            raise ConfigError(
                f'device {self.name}: its {computed_in} peak is not known; choose of '
                f'{", ".join(able)}, or give the peak: --device FILE.'
            )
        return self.tflops[computed_in] * 1e12


# int4 is a form of storage: weights are unpacked and multiplied in half precision.
_COMPUTED_IN: dict[Precision, str] = {
    'fp32': 'fp32',
    'fp16': 'half',
    'bf16': 'half',
    'int4': 'half',
    'fp8': 'fp8',
    'int8': 'int8',
    'nvfp4': 'nvfp4',
}

# The first of a target is what a platform of that target is planned for.
DEVICES: tuple[Device, ...] = (
    Device(
        'orin',
        'Jetson AGX Orin 64 GB',
        'sm_87',
        {'fp32': 5.3, 'half': 42.5, 'int8': 85.0},
        204.8,
        64.0,
        "the maker's data sheet, GPU alone, dense",
    ),
    Device(
        'thor',
        'Jetson AGX Thor (T5000)',
        'sm_110',
        {'fp32': 8.1, 'half': 258.5, 'fp8': 517.0, 'nvfp4': 1035.0},
        273.0,
        128.0,
        "the maker's data sheet, dense; it names no dense int8 figure",
    ),
    Device(
        'rtx5090',
        'GeForce RTX 5090',
        'sm_120',
        {'fp32': 104.8, 'half': 210.0, 'fp8': 419.0, 'int8': 838.0, 'nvfp4': 1676.0},
        1792.0,
        32.0,
        "the maker's architecture paper, dense, float32 accumulation",
    ),
    Device(
        'h200',
        'H200 SXM',
        'sm_90',
        {'fp32': 67.0, 'half': 790.0, 'fp8': 1500.0},
        4300.0,
        141.0,
        'best measured on one card, rounded up: benchmarks/gpu-peaks-h200.json (data sheet, '
        'dense: 989, 1979 and 4800); fp32: data sheet',
    ),
    Device(
        'rtx4090',
        'GeForce RTX 4090',
        'sm_89',
        {'fp32': 82.6, 'half': 165.0, 'fp8': 330.0, 'int8': 660.0},
        1008.0,
        24.0,
        "the maker's architecture paper, dense, float32 accumulation",
    ),
    Device(
        'rtx3090',
        'GeForce RTX 3090',
        'sm_86',
        {'fp32': 35.6, 'half': 71.0, 'int8': 284.0},
        936.0,
        24.0,
        "the maker's architecture paper, dense, float32 accumulation",
    ),
)


def find_device(name_or_path: str, target: str) -> Device:
    """The device called ``name_or_path`` or described by that YAML file; '' is the first of
    ``target``. ConfigError where there is none, or where it is of another target.
    """
    if os.sep in name_or_path or name_or_path.endswith(('.yaml', '.yml')):
        device = load_yaml(Device, Path(name_or_path).expanduser())
    else:
        known = [d for d in DEVICES if name_or_path in ('', d.name)]
        if not known:
            raise ConfigError(
                f'device {name_or_path!r} is none of {", ".join(d.name for d in DEVICES)}; '
                'give a YAML file for another one.'
            )
        fitting = [d for d in known if d.target == target]
        if not name_or_path and not fitting:
            raise ConfigError(
                f'no peaks are known for target {target}; describe the device in a YAML file: '
                '--device FILE.'
            )
        device = (fitting or known)[0]
    if device.target != target:
        raise ConfigError(
            f'device {device.name} is of target {device.target}, the platform of {target}; '
            'choose a platform of the same target.'
        )
    return device
