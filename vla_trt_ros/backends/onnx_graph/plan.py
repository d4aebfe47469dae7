"""An ONNX file as a list of torch's operations.

Loading computes once what is the same for every picture, and walks the rest with tensors that have
a shape and no memory: a network that cannot run is refused before it gets to the GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

from vla_trt_ros.backends.onnx_graph.node import Node, Operation
from vla_trt_ros.backends.onnx_graph.operators import DTYPES, OPERATORS, unknown
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BackendError

LEAST_OPSET = 13
"""Softmax and others meant something else before."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: which tensors it takes ('' for none), makes, and what nobody needs after."""

    run: Operation
    kind: str
    takes: tuple[str, ...]
    makes: tuple[str, ...]
    frees: tuple[str, ...] = ()


class Plan:
    """``steps`` in their order; ``constants`` are on the device where `run` shall work."""

    def __init__(
        self, steps: Sequence[Step], constants: Mapping[str, Tensor], outputs: Sequence[str]
    ) -> None:
        self.steps = tuple(steps)
        self.outputs = tuple(outputs)
        self._constants = dict(constants)

    def run(self, given: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs, which are new at each call."""
        held: dict[str, Any] = {'': None, **self._constants, **given}
        for step in self.steps:
            made = step.run(*(held[name] for name in step.takes))
            if len(step.makes) == 1:
                held[step.makes[0]] = made
            else:
                held.update(zip(step.makes, made, strict=False))
            for name in step.frees:
                del held[name]
        return [held[name] for name in self.outputs]

    def to(self, device: str) -> Plan:
        """The same with its constants on ``device``, weights of convolutions channels last."""
        used = {name for step in self.steps for name in step.takes} | set(self.outputs)
        moved = {
            name: _placed(value, device) for name, value in self._constants.items() if name in used
        }
        return Plan(self.steps, moved, self.outputs)


def load_plan(
    file: Path, name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Plan:
    """The plan of ``file``, whose tensors must be ``inputs`` and ``outputs``; on the CPU.

    BackendError where the file is damaged, differs from them, or has an operator that is not in
    the table. ``name`` is for messages.
    """
    try:
        model = onnx.load(file)
    except Exception as error:  # protobuf's errors and the system's have no common base
        raise BackendError(f'{name}: {file} is no ONNX file ({error}); copy it again.') from error
    opset = next((o.version for o in model.opset_import if o.domain in ('', 'ai.onnx')), 0)
    if opset < LEAST_OPSET:
        raise BackendError(
            f'{name}: {file} is of opset {opset}; export it with {LEAST_OPSET} or newer.'
        )
    foreign = unknown([node.op_type for node in model.graph.node])
    if foreign:
        raise BackendError(
            f'{name}: {file.name} has operators that backend onnx_graph does not know: {foreign}; '
            'choose fp16 or fp32 (8-bit forms are for TensorRT and ONNX Runtime), or a platform '
            'whose perception is tensorrt.'
        )
    builder = _Builder(model.graph, opset, name)
    builder.check('input', inputs, builder.graph_inputs)
    shapes = {spec.name: _hollow(spec) for spec in inputs}
    for node in model.graph.node:
        builder.add(node, shapes)
    builder.check('output', outputs, {n: shapes.get(n) for n in builder.graph_outputs})
    steps = _freed(_with_silu(builder.steps), builder.graph_outputs, builder.constants)
    return Plan(steps, builder.constants, [spec.name for spec in outputs])


class _Builder:
    def __init__(self, graph: onnx.GraphProto, opset: int, name: str) -> None:
        self._opset, self._name = opset, name
        self.steps: list[Step] = []
        self.constants = {t.name: _tensor(t) for t in graph.initializer}
        self.graph_inputs = {
            v.name: _hollow_of(v) for v in graph.input if v.name not in self.constants
        }
        self.graph_outputs = tuple(v.name for v in graph.output)

    def add(self, proto: onnx.NodeProto, shapes: dict[str, Tensor]) -> None:
        """Compute ``proto`` now, if nothing in it depends on the picture, or make a step of it;
        its results join ``shapes``.
        """
        takes, makes = tuple(proto.input), tuple(proto.output)
        node = Node(
            proto.op_type,
            proto.name or makes[0],
            {a.name: _attribute(a) for a in proto.attribute},
            tuple(bool(name) for name in takes),
            tuple(self.constants.get(name) for name in takes),
            len(makes),
            self._opset,
        )
        fixed = all(name == '' or name in self.constants for name in takes)
        values = [
            shapes[name] if name in shapes else self._value(name, fixed, node) for name in takes
        ]
        try:
            run = OPERATORS[node.kind](node)
            made = run(*values)
        except BackendError as error:
            raise BackendError(f'{self._name}: {error}') from error
        except Exception as error:  # of torch, for shapes that do not fit
            raise BackendError(
                f'{self._name}: {node.kind} {node.name!r} does not run: '
                f'{str(error).strip().splitlines()[0]}; check the file: python -m onnx.checker.'
            ) from error
        results = made if isinstance(made, tuple) else (made,)
        # A Shape's result is known as soon as the shape is.
        if fixed or all(not result.is_meta for result in results):
            self.constants.update(zip(makes, results, strict=False))
        else:
            shapes.update(zip(makes, results, strict=False))
            self.steps.append(Step(run, node.kind, takes, makes))

    def _value(self, name: str, fixed: bool, node: Node) -> Tensor | None:
        if not name:
            return None
        if name not in self.constants:
            raise BackendError(
                f'{self._name}: {node.kind} {node.name!r} reads {name!r}, which nothing makes; '
                'export the bundle again.'
            )
        found = self.constants[name]
        return found if fixed else found.to('meta')

    def check(
        self, role: str, specs: Sequence[TensorSpec], found: Mapping[str, Tensor | None]
    ) -> None:
        """BackendError unless the tensors of the file are those of the manifest."""
        for spec in specs:
            have = found.get(spec.name)
            was = 'missing'
            if have is not None:
                dtype = str(have.dtype).removeprefix('torch.')
                was = f'{dtype} {list(have.shape)}'
                if (dtype, tuple(have.shape)) == (spec.dtype, spec.shape):
                    continue
            raise BackendError(
                f'{self._name}: {role} {spec.name!r} is {was} in the file, the manifest says '
                f'{spec.dtype} {list(spec.shape)}; export the bundle again.'
            )
        for name in found:
            if name not in [spec.name for spec in specs]:
                raise BackendError(
                    f'{self._name}: the file has one more {role}, {name!r}; export it again.'
                )


def _with_silu(steps: list[Step]) -> list[Step]:
    """``x * sigmoid(x)``, which YOLO has behind every convolution, as one operation."""
    uses = Counter(name for step in steps for name in step.takes)
    gates = {
        step.makes[0]: step
        for step in steps
        if step.kind == 'Sigmoid' and uses[step.makes[0]] == 1
    }
    fused: set[str] = set()
    out = []
    for step in steps:
        if step.kind == 'Mul':
            gate = next((gates[name] for name in step.takes if name in gates), None)
            if gate is not None and set(step.takes) == {gate.takes[0], gate.makes[0]}:
                step = replace(step, run=F.silu, kind='Silu', takes=gate.takes)
                fused.add(gate.makes[0])
        out.append(step)
    return [step for step in out if not (step.kind == 'Sigmoid' and step.makes[0] in fused)]


def _freed(
    steps: list[Step], outputs: Sequence[str], constants: Mapping[str, Tensor]
) -> list[Step]:
    """The steps, each with the tensors that it is the last one to take."""
    later = {*outputs, *constants, ''}
    out = []
    for step in reversed(steps):
        mine = {*step.takes, *(name for name in step.makes if name)}
        out.append(replace(step, frees=tuple(sorted(mine - later))))
        later |= mine
    return out[::-1]


def _placed(value: Tensor, device: str) -> Tensor:
    if value.dim() == 4 and value.is_floating_point():
        return value.to(device, memory_format=torch.channels_last)
    return value.to(device)


def _attribute(proto: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, onnx.TensorProto):
        return _tensor(value)
    return value.decode() if isinstance(value, bytes) else value


def _tensor(proto: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(proto).copy())


def _hollow(spec: TensorSpec) -> Tensor:
    return torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device='meta')


def _hollow_of(value: onnx.ValueInfoProto) -> Tensor | None:
    kind = value.type.tensor_type
    dtype = DTYPES.get(kind.elem_type)
    shape = [d.dim_value for d in kind.shape.dim]
    return None if dtype is None else torch.empty(shape, dtype=dtype, device='meta')
