"""Conditions on metrics that decide a replay's exit status: 'mae_h1<=0.02'."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vla_trt_ros.errors import ConfigError

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    '<=': operator.le,
    '>=': operator.ge,
    '<': operator.lt,
    '>': operator.gt,
}
_PATTERN = re.compile(r'\s*([\w.\-]+)\s*(<=|>=|<|>)\s*(\S+)\s*')


@dataclass(frozen=True, slots=True)
class Gate:
    """``metric`` compared with ``bound``, for every setting that is judged."""

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f'{self.metric}{self.sign}{self.bound:g}'


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate said of a setting."""

    gate: Gate
    setting: str
    value: float
    passed: bool

    def __str__(self) -> str:
        word = 'pass' if self.passed else 'FAIL'
        return f'{word}  {self.gate}  {self.setting}: {self.value:.6g}'


def parse_gate(text: str) -> Gate:
    """'metric<=value' with one of <=, <, >=, >; ConfigError for anything else."""
    match = _PATTERN.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        gate = Gate(match[1], match[2], float(match[3]))
        if not math.isfinite(gate.bound):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"--gate {text!r}: write metric<=value, such as 'mae_h1<=0.02', with one of "
            f'{", ".join(_OPERATORS)}; quote it for the shell.'
        ) from None
    return gate


def check_gates(gates: Sequence[Gate], known: Sequence[str]) -> None:
    """ConfigError where a gate names none of the ``known`` metrics, before anything is run."""
    for gate in gates:
        if gate.metric not in known:
            close = difflib.get_close_matches(gate.metric, known, n=1)
            hint = f'did you mean {close[0]}? ' if close else ''
            names = ', '.join(sorted(known))
            raise ConfigError(f'--gate {gate}: no such metric; {hint}Known: {names}.')


def decide(
    gates: Sequence[Gate], metrics_of: Mapping[str, Mapping[str, float]]
) -> tuple[Verdict, ...]:
    """Every gate on the metrics of every setting; a metric that these bags do not give is NaN and
    fails: a gate that nothing is held to would always be open.
    """
    verdicts = []
    for gate in gates:
        for setting, metrics in metrics_of.items():
            value = metrics.get(gate.metric, math.nan)
            passed = _OPERATORS[gate.sign](value, gate.bound)
            verdicts.append(Verdict(gate, setting, value, passed))
    return tuple(verdicts)
