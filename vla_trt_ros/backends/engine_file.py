"""The record beside an engine file: what it was made of, by what and for what.

``vision.fp8.1a2b3c4d.plan`` has ``vision.fp8.1a2b3c4d.plan.json``. The builder writes it and skips
what is up to date by it; the run time refuses by it what cannot run here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from vla_trt_ros.backends.trt_module import title
from vla_trt_ros.errors import BackendError, ConfigError
from vla_trt_ros.strict_yaml import build


@dataclass(frozen=True, slots=True)
class EngineKey:
    """All that an engine depends on: where one of these differs, it is built again."""

    onnx_sha256: str
    """Over the hashes of the graph and of every file that holds its weights."""
    precision: str
    flavour: str
    """'tensorrt' or 'tensorrt_rtx'."""
    builder_version: str
    target: str
    """The GPU, as 'sm_120'."""
    recipe: int
    """Version of what this package does to a graph before the builder sees it."""
    workspace_bytes: int = 0
    """Limit of the builder's scratch memory; 0: its own default."""

    def difference(self, other: EngineKey) -> str:
        """For people: what of ``other`` is not as here, '' when they are equal."""
        old, new = asdict(other), asdict(self)
        words = [
            'ONNX changed' if name == 'onnx_sha256' else f'{name} {old[name]} -> {new[name]}'
            for name in new
            if old[name] != new[name]
        ]
        return ', '.join(words)


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """One engine file. Counts are None where the builder's log does not tell them."""

    stage: str
    """For people: 'prefix, 200 tokens'."""
    source: str
    """ONNX file in the bundle."""
    key: EngineKey
    plan_sha256: str
    plan_bytes: int
    seconds: float
    """Parse and build, wall clock."""
    peak_memory_bytes: int
    """Largest resident size of the building process."""
    layers: int | None = None
    attentions: int | None = None
    """Attentions in the ONNX graph."""
    fused_attentions: int | None = None
    """Attentions that became one kernel."""
    low_precision_layers: int | None = None
    """Layers that read 8-bit or 4-bit weights."""
    weights_bytes: int | None = None
    activation_bytes: int | None = None
    """Scratch memory that one execution context takes."""

    @property
    def builder(self) -> str:
        """For people: 'TensorRT 10.13.3.9'."""
        return title(self.key.flavour, self.key.builder_version)


def record_path(plan: Path) -> Path:
    """Where the record of ``plan`` lies."""
    return plan.with_name(f'{plan.name}.json')


def read_record(plan: Path) -> EngineRecord:
    """The record of ``plan``. BackendError if it is missing or wrong."""
    where = record_path(plan)
    try:
        data = json.loads(where.read_bytes())
        return build(EngineRecord, data, str(where))
    except FileNotFoundError as error:
        raise BackendError(
            f'{where} is missing: it says what {plan.name} was built for; build the engine again: '
            'vla-trt build.'
        ) from error
    except (OSError, ValueError, ConfigError) as error:
        raise BackendError(
            f'{where} cannot be used ({error}); remove it and build again: vla-trt build.'
        ) from error


def write_record(plan: Path, record: EngineRecord) -> None:
    """Write the record of ``plan``."""
    text = json.dumps(asdict(record), indent=1) + '\n'
    record_path(plan).write_text(text, encoding='utf-8')
