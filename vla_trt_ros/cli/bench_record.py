"""Benchmark records: what `vla-trt bench --json` writes, and the files of others that it reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.planning.measured import OURS
from vla_trt_ros.strict_yaml import build


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a benchmark file; times are medians in milliseconds unless the name says else."""

    hardware: str
    backend: str
    precision: str
    views: int
    prompt_tokens: int
    horizon: int
    steps: int
    e2e_total_ms: float
    vision_ms: float
    prefix_ms: float
    denoise_ms: float
    hz: float
    p50_ms: float
    p99_ms: float
    n: int
    clock: str
    bundle: str
    camera: str
    preprocess_ms: float
    implementation: str = OURS
    """Whose network was timed: ours, PyTorch's twin of it, or a peer's."""
    host: str = ''
    """The processor beside a GPU."""
    prompt_bucket: int = 0
    """Tokens that the engines take, padding included."""
    stage_clock: str = ''
    """What the stages' times are read from."""
    frames_ms: float = 0.0
    """The host's part of bringing the frames to the GPU, which a node does as they arrive."""
    upload_ms: float = 0.0
    download_ms: float = 0.0
    postprocess_ms: float = 0.0
    engines_ms: float = 0.0
    """Vision, prefix and denoise of one run together."""
    per_step_ms: float = 0.0
    """Denoise over steps."""
    gpu_memory_mib: float = 0.0
    """In use on the GPU; 0 without one."""
    uploads: int = 0
    """Host-to-device copies of a run, and their bytes."""
    upload_bytes: int = 0
    software: str = ''
    """Versions of what runs the stages."""
    uploaded_total_ms: float | None = None
    """The whole as a node runs it: frames are on the GPU before the clock starts. Also its p99.
    None where frames stay on the host.
    """
    uploaded_p99_ms: float | None = None
    uploaded_clock: str = ''
    floor_device: str = ''
    """Whose peaks the floors are made of; '' where none are known."""
    floor_ms: float | None = None
    """On paper, of the three stages (docs/plan.md)."""
    vision_floor_ms: float | None = None
    prefix_floor_ms: float | None = None
    denoise_floor_ms: float | None = None

    def over_floor(self, stage: str = '') -> float | None:
        """Time over floor of 'vision', 'prefix', 'denoise' or of the three together."""
        floor: float | None = getattr(self, f'{stage}_floor_ms' if stage else 'floor_ms')
        time: float = getattr(self, f'{stage}_ms' if stage else 'engines_ms')
        return None if floor is None else time / floor


@dataclass(frozen=True, slots=True)
class OtherRecord:
    """What a comparison needs of a record of any implementation; milliseconds."""

    hardware: str
    backend: str
    precision: str
    views: int
    prompt_tokens: int
    horizon: int
    steps: int
    e2e_total_ms: float
    clock: str
    vision_ms: float | None = None
    prefix_ms: float | None = None
    denoise_ms: float | None = None
    implementation: str = OURS

    def __post_init__(self) -> None:
        if not self.e2e_total_ms > 0:
            raise ConfigError(f'e2e_total_ms {self.e2e_total_ms} must be above 0.')

    def same_work(self, record: Record) -> bool:
        """Whether it is of the shape and step count of ``record``."""
        prompt = (record.prompt_tokens, record.prompt_bucket)
        return self.prompt_tokens in prompt and all(
            getattr(self, name) == getattr(record, name) for name in ('views', 'horizon', 'steps')
        )


def read_others(path: Path) -> tuple[OtherRecord, ...]:
    """The records of a benchmark file; fields beyond those of OtherRecord are skipped.

    ConfigError for a file that cannot be read, that is no list of records, or that has none.
    """
    try:
        data = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ConfigError(f'{path}: cannot be read ({error.strerror}).') from error
    except ValueError as error:
        raise ConfigError(f'{path}: is not JSON ({error}).') from error
    if not isinstance(data, list) or not data:
        raise ConfigError(f'{path}: holds no list of records, as vla-trt bench --json writes it.')
    names = {f.name for f in fields(OtherRecord)}
    found = []
    for k, record in enumerate(data):
        known = record
        if isinstance(record, dict):
            known = {name: value for name, value in record.items() if name in names}
        found.append(build(OtherRecord, known, f'{path}: record {k}'))
    return tuple(found)


def to_json(records: Sequence[Record]) -> str:
    """A list of mappings, a line a field."""
    return json.dumps([asdict(r) for r in records], indent=1) + '\n'
