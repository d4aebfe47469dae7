"""ONNX graphs traced without weights: the weights are named, and written later.

A module on torch's meta device costs no memory, however large; its graph is the one that real
weights would give. Each parameter becomes an initialiser that is *pending*: it has name, shape and
type, and a `Recipe` that says how its bytes come from the checkpoint's tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx
import torch
from onnx import NodeProto, TensorProto, numpy_helper
from torch import Tensor

_TORCH = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an initialiser follows from a parameter: cast, add, then transpose."""

    parameter: str
    dtype: torch.dtype
    add: float = 0.0
    transpose: bool = False

    def cook(self, load: Callable[[str], Tensor]) -> Tensor:
        """The initialiser's values, contiguous."""
        tensor = load(self.parameter).to(self.dtype)
        if self.add:
            tensor = tensor + self.add
        return (tensor.T if self.transpose else tensor).contiguous()


@dataclass(frozen=True, slots=True)
class Traced:
    """A graph whose initialisers named in ``recipes`` are pending."""

    model: onnx.ModelProto
    recipes: dict[str, Recipe]


def inputs_to_pending(model: onnx.ModelProto, parameters: dict[str, str]) -> Traced:
    """Turn graph inputs that are parameters (input name -> parameter name) into initialisers.

    A transpose of a weight, and a number added to one, are folded into its recipe.
    """
    graph = model.graph
    recipes: dict[str, Recipe] = {}
    names: dict[str, str] = {}
    inputs = list(graph.input)
    del graph.input[:]
    for value in inputs:
        if value.name in parameters:
            dtype = _TORCH[value.type.tensor_type.elem_type]
            recipes[value.name] = Recipe(parameters[value.name], dtype)
        else:
            graph.input.append(value)
    folded = _fold(graph, recipes)
    used = {name for node in folded for name in node.input}
    taken: set[str] = set()
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inputs}
    kept: dict[str, Recipe] = {}
    for name, recipe in recipes.items():
        if name not in used:
            continue
        # The parameter's own name, unless two forms of it are in use.
        names[name] = name if recipe.parameter in taken else recipe.parameter
        taken.add(names[name])
        origin = next(k for k, v in parameters.items() if v == recipe.parameter)
        dims = shapes[origin][::-1] if recipe.transpose else shapes[origin]
        kept[names[name]] = recipe
        graph.initializer.append(_pending(names[name], dims, recipe.dtype))
    for node in folded:
        node.input[:] = [names.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(folded)
    return Traced(model, kept)


def is_pending(tensor: TensorProto) -> bool:
    """Whether the bytes of ``tensor`` are still to be written."""
    return tensor.data_location == TensorProto.EXTERNAL and not tensor.external_data


def fill(traced: Traced, load: Callable[[str], Tensor]) -> onnx.ModelProto:
    """The graph with its weights inside it; for small graphs."""
    for tensor in traced.model.graph.initializer:
        if is_pending(tensor):
            tensor.ClearField('data_location')
            tensor.raw_data = as_bytes(traced.recipes[tensor.name].cook(load)).tobytes()
    return traced.model


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, without a copy."""
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())


def _fold(graph: onnx.GraphProto, recipes: dict[str, Recipe]) -> list[NodeProto]:
    """The nodes that remain; what was folded is added to ``recipes``."""
    constants = {t.name: t for t in graph.initializer}
    remain = []
    for node in graph.node:
        new = _folded(node, recipes, constants)
        if new is None:
            remain.append(node)
        else:
            recipes[node.output[0]] = new
    return remain


def _folded(
    node: NodeProto, recipes: dict[str, Recipe], constants: dict[str, TensorProto]
) -> Recipe | None:
    weights = [name for name in node.input if name in recipes]
    if len(weights) != 1:
        return None
    recipe = recipes[weights[0]]
    if node.op_type == 'Transpose' and not recipe.transpose:
        perm = next((list(a.ints) for a in node.attribute if a.name == 'perm'), None)
        return replace(recipe, transpose=True) if perm in (None, [1, 0]) else None
    if node.op_type == 'Add' and not recipe.add and not recipe.transpose:
        other = next(name for name in node.input if name != weights[0])
        if other in constants and not constants[other].dims:
            return replace(recipe, add=float(numpy_helper.to_array(constants[other])))
    return None


def _pending(name: str, dims: list[int], dtype: torch.dtype) -> TensorProto:
    element = next(k for k, v in _TORCH.items() if v == dtype)
    return TensorProto(name=name, dims=dims, data_type=element, data_location=TensorProto.EXTERNAL)
