"""A ROS parameter is one row: name, default, meaning, bounds, and whether it changes live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from vla_trt_ros.errors import VlaError


@dataclass(frozen=True, slots=True)
class Param:
    """``bounds`` are inclusive; ``choices`` list all allowed values; ``live`` may change later."""

    name: str
    default: bool | int | float | str
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[Any, ...] = ()
    live: bool = False


def declare(node: Node, rows: Sequence[Param]) -> dict[str, Any]:
    """Declare ``rows`` on ``node`` and give their values, overrides included."""
    values = {}
    for row in rows:
        constraints = f'one of {list(row.choices)}' if row.choices else ''
        descriptor = ParameterDescriptor(
            description=row.description,
            read_only=not row.live,
            additional_constraints=constraints,
        )
        if row.bounds and isinstance(row.default, float):
            low, high = row.bounds
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        values[row.name] = node.declare_parameter(row.name, row.default, descriptor).value
    return values


def on_change(
    node: Node, check: Callable[[dict[str, Any]], None], apply: Callable[[dict[str, Any]], None]
) -> None:
    """Call ``check`` with the new values before they are set (a VlaError refuses them, in its own
    words) and ``apply`` afterwards.
    """

    def checked(changed: list[Parameter]) -> SetParametersResult:
        try:
            check({p.name: p.value for p in changed})
        except VlaError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(checked)
    node.add_post_set_parameters_callback(
        lambda changed: apply({p.name: p.value for p in changed})
    )


def table(rows: Sequence[Param]) -> str:
    """The rows as a Markdown table, for docs/parameters.md."""
    lines = ['| parameter | default | live | meaning |', '|---|---|---|---|']
    for row in rows:
        default = f'`{row.default!r}`' if row.default != '' else 'empty'
        limits = f' ({row.bounds[0]:g} to {row.bounds[1]:g})' if row.bounds else ''
        choices = ', '.join(str(c) or 'empty' for c in row.choices)
        options = f' One of {choices}.' if choices else ''
        live = 'yes' if row.live else ''
        lines.append(
            f'| `{row.name}` | {default} | {live} | {row.description}{limits}.{options} |'
        )
    return '\n'.join(lines)
