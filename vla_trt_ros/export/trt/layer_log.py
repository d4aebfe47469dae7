"""What an engine became, from the builder's VERBOSE log.

TensorRT's engine inspector needs the GPU that the engine is for; the log needs none. With detailed
profiling verbosity it holds a message 'Layers:' with one line per layer: name, type, and datatype
of every tensor and constant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FUSED_ATTENTION = '_gemm_mha_v2'
"""In the name of the one kernel that a whole attention became. 'attention' alone will not do:
plain GEMMs carry it too, from the name of their ONNX node.
"""
_LOW = re.compile(r'Datatype: (FP8\w*|E4M3\w*|Int8|Int4|FP4\w*|E2M1\w*)', re.IGNORECASE)
_CONSTANTS = re.compile(r'Constants: \[(.*?)\], Outputs:')
_KIND = re.compile(r'LayerType: (\w+)')
_WAITING = ('signal', 'wait')
_MEMORY = {
    'weights': re.compile(r'Total Weights Memory: (\d+) bytes'),
    'activation': re.compile(r'Total Activation Memory: (\d+) bytes'),
}


@dataclass(frozen=True, slots=True)
class LayerLog:
    """Counts; None where the log does not tell."""

    layers: int | None = None
    """Less those that only make streams wait for each other."""
    fused_attentions: int | None = None
    low_precision: dict[str, int] | None = None
    """Datatype of 8 bits or fewer among the constants -> layers that read such."""
    kinds: dict[str, int] | None = None
    """Layer type -> layers, all of them."""
    weights_bytes: int | None = None
    activation_bytes: int | None = None


class LogReader:
    """Listens to the builder: call it with every message, then read `log`."""

    def __init__(self) -> None:
        self._layers: list[str] = []
        self._found = False
        self._memory: dict[str, int] = {}

    def __call__(self, message: str) -> None:
        """Keep what matters of one message."""
        if 'Layers:' in message:
            lines = [line for line in message.splitlines() if 'LayerType:' in line]
            self._found |= bool(lines)
            self._layers += lines
        elif 'Memory: ' in message:
            for name, pattern in _MEMORY.items():
                if match := pattern.search(message):
                    # A graph that falls into several parts is reported part by part.
                    self._memory[name] = self._memory.get(name, 0) + int(match[1])

    @property
    def log(self) -> LayerLog:
        """What was heard."""
        weights, activation = self._memory.get('weights'), self._memory.get('activation')
        if not self._found:
            return LayerLog(weights_bytes=weights, activation_bytes=activation)
        low: dict[str, int] = {}
        kinds: dict[str, int] = {}
        for line in self._layers:
            if match := _KIND.search(line):
                kinds[match[1]] = kinds.get(match[1], 0) + 1
            constants = _CONSTANTS.search(line)
            for name in {m.lower() for m in _LOW.findall(constants[1] if constants else '')}:
                low[name] = low.get(name, 0) + 1
        return LayerLog(
            layers=sum(n for kind, n in kinds.items() if kind not in _WAITING),
            fused_attentions=sum(FUSED_ATTENTION in line for line in self._layers),
            low_precision=low,
            kinds=kinds,
            weights_bytes=weights,
            activation_bytes=activation,
        )
