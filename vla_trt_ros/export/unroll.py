"""The denoise loop as one graph, built from the graph of one step.

The step's nodes are copied once per Euler step. What does not depend on the latent or on the time
(rotary tables, masks, slices of the cache) is emitted once, before the first step. Weights keep
their names, so all copies read the same initialisers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper

from vla_trt_ros.export.to_onnx import check_boundary, value_info
from vla_trt_ros.export.weights import constant
from vla_trt_ros.policies.pi05.spec import StageSpec

_TABLE = 'modulation_table'


def unroll(
    step: onnx.ModelProto,
    spec: StageSpec,
    table: NDArray[np.float32],
    rows: tuple[int, ...],
) -> onnx.ModelProto:
    """The loop over ``rows`` of ``table`` as one model with the boundary ``spec``.

    ``step`` computes 'velocity' from 'x', 'modulation' and tensors that stay the same. ``table``
    is float32 [times, 2 L + 1, 3 W]: the modulation of every time that any step count needs, so
    that all step counts store the same initialiser. Step i runs at row ``rows[i]``.
    """
    once, each = _split(step.graph.node, varying={'x', 'modulation'})
    names = {name: f'c{i}' for i, name in enumerate(_outputs(once))}
    nodes = [_renamed(node, names) for node in once]
    dt = constant('dt', -1.0 / len(rows), 'float32')
    initializers = [*step.graph.initializer, constant(_TABLE, table, 'float32'), dt]
    noise, actions = spec.inputs[0].name, spec.outputs[0].name
    x = noise
    for i, row in enumerate(rows):
        row_name = f's{i}_row'
        initializers.append(constant(row_name, row, 'int64'))
        inner = {
            **names,
            **{name: f's{i}_{n}' for n, name in enumerate(_outputs(each))},
            'x': x,
            'modulation': f's{i}_modulation',
            'velocity': f's{i}_velocity',
        }
        nodes.append(helper.make_node('Gather', [_TABLE, row_name], [inner['modulation']], axis=0))
        nodes += [_renamed(node, inner) for node in each]
        # The latent stays float32 over the steps, whatever the precision of the expert.
        nodes.append(helper.make_node('Mul', [inner['velocity'], 'dt'], [f's{i}_delta']))
        following = actions if i == len(rows) - 1 else f'x{i + 1}'
        nodes.append(helper.make_node('Add', [x, f's{i}_delta'], [following]))
        x = following
    for i, node in enumerate(nodes):
        node.name = f'n{i}'
    graph = helper.make_graph(
        nodes,
        f'denoise_{len(rows)}',
        [value_info(t) for t in spec.inputs],
        [value_info(t) for t in spec.outputs],
        [copy.deepcopy(t) for t in initializers],
    )
    model = helper.make_model(
        graph,
        opset_imports=step.opset_import,
        ir_version=step.ir_version,
        producer_name='vla_trt_ros',
    )
    check_boundary(model, spec)
    return model


def _split(nodes: list[NodeProto], varying: set[str]) -> tuple[list[NodeProto], list[NodeProto]]:
    """Nodes that do not depend on ``varying``, and those that do; each in the order given."""
    varying = set(varying)
    once, each = [], []
    for node in nodes:
        if varying.intersection(node.input):
            varying.update(node.output)
            each.append(node)
        else:
            once.append(node)
    return once, each


def _outputs(nodes: list[NodeProto]) -> list[str]:
    return [name for node in nodes for name in node.output]


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    new = copy.deepcopy(node)
    new.input[:] = [names.get(name, name) for name in node.input]
    new.output[:] = [names.get(name, name) for name in node.output]
    return new
