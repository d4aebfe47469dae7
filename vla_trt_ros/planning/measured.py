"""Shares from what `vla-trt bench --json` measured: floor over measured time, per stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from vla_trt_ros.config import STAGES
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.planning.efficiency import Efficiency
from vla_trt_ros.planning.roofline import Plan
from vla_trt_ros.strict_yaml import build

OURS = 'vla_trt_ros'
"""The implementation that a record without the field is of."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The part of a benchmark record that shares are made of; medians in milliseconds."""

    hardware: str
    backend: str
    precision: str
    views: int
    prompt_tokens: int
    horizon: int
    steps: int
    vision_ms: float
    prefix_ms: float
    denoise_ms: float
    n: int

    def __post_init__(self) -> None:
        for stage in STAGES:
            if not self.ms(stage) > 0:
                raise ConfigError(f'{stage}_ms {self.ms(stage)} must be above 0.')

    @property
    def kind(self) -> tuple[str, str, str]:
        """What a share is of."""
        return self.hardware, self.backend, self.precision

    def ms(self, stage: str) -> float:
        """Time of one stage."""
        value: float = getattr(self, f'{stage}_ms')
        return value


def shares_from(
    records: Sequence[Any], plan_of: Callable[[int, int], Plan], where: str
) -> Efficiency:
    """One share per stage over all ``records``, the JSON of a benchmark; those of another
    implementation, a baseline or a peer, are passed over.

    ``plan_of(prompt_tokens, steps)`` plans the network, device and precisions that were
    measured. ConfigError where a record is none, is of another shape, hardware, backend or
    precision, or beats a floor.
    """
    ours = [(k, r) for k, r in enumerate(records) if not _of_another(r)]
    if not ours:
        raise ConfigError(f'{where}: holds no records of ours; measure at least one.')
    names = {f.name for f in fields(Measured)}
    floors, times = dict.fromkeys(STAGES, 0.0), dict.fromkeys(STAGES, 0.0)
    found: list[Measured] = []
    for k, record in ours:
        data = record
        if isinstance(record, dict):  # a record says more than is needed here
            data = {name: value for name, value in record.items() if name in names}
        measured = build(Measured, data, f'{where}: record {k}')
        if found and measured.kind != found[0].kind:
            raise ConfigError(
                f'{where}: record {k} is of {" ".join(measured.kind)}, another of '
                f'{" ".join(found[0].kind)}; keep the records of one in a file.'
            )
        plan = plan_of(measured.prompt_tokens, measured.steps)
        for name, word in (('views', '--views'), ('horizon', '--horizon')):
            was, wanted = getattr(measured, name), getattr(plan, name)
            if was != wanted:
                raise ConfigError(
                    f'{where}: record {k}: measured with {name} {was}, planned with {wanted}; '
                    f'plan what was measured: {word} {was}.'
                )
        for stage in plan.stages:
            floors[stage.stage] += stage.floor_ms
            times[stage.stage] += measured.ms(stage.stage)
        found.append(measured)
    first = found[0]
    steps = ', '.join(str(m.steps) for m in found)
    source = (
        f'{first.hardware}, {first.backend} {first.precision}, {first.views} views, '
        f'{first.prompt_tokens} prompt tokens, horizon {first.horizon}, steps {steps}, '
        f'n = {first.n}'
    )
    shares: dict[str, object] = {stage: floors[stage] / times[stage] for stage in STAGES}
    return build(Efficiency, shares | {'source': source}, where)


def _of_another(record: Any) -> bool:
    return isinstance(record, dict) and record.get('implementation', OURS) != OURS
