"""One node of an ONNX graph while it is being prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vla_trt_ros.errors import BackendError

Operation = Callable[..., Any]
"""Tensors of all inputs in order, None for one that is left out -> one tensor, or one of each
output.
"""


@dataclass(frozen=True, slots=True)
class Node:
    """``attributes`` hold numbers, strings, lists of them, and tensors on the CPU. ``constants``
    has the value of each input that is the same for every picture, on the CPU, else None.
    """

    kind: str
    name: str
    attributes: Mapping[str, Any]
    given: tuple[bool, ...]
    """Of each input, whether it is there: ONNX leaves out those in the middle by an empty name."""
    constants: tuple[Tensor | None, ...]
    outputs: int
    opset: int

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Whether input ``index`` is there."""
        return index < len(self.given) and self.given[index]

    def is_constant(self, index: int) -> bool:
        """Whether input ``index`` is there, and the same for every picture."""
        return index < len(self.constants) and self.constants[index] is not None

    def constant(self, index: int) -> Tensor:
        """Input ``index``. BackendError where it depends on the picture."""
        found = self.constants[index] if index < len(self.constants) else None
        if found is None:
            raise self.refused(
                f'input {index} is computed from the picture; export the network with fixed shapes'
            )
        return found

    def ints(self, index: int) -> list[int]:
        """Input ``index`` as numbers. BackendError where it depends on the picture."""
        return [int(n) for n in self.constant(index).reshape(-1).tolist()]

    def refused(self, why: str) -> BackendError:
        """For a use of the operator that the table does not know."""
        return BackendError(f'{self.kind} {self.name!r}: {why}, or run it with TensorRT.')
