"""Float32 weights in 16 bits: the same numbers, half the bytes."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from vla_trt_ros.export.evaluate import load_graph
from vla_trt_ros.export.quantize.draft import open_draft, stored_halves
from vla_trt_ros.export.quantize.halves import repack
from vla_trt_ros.export.quantize.store import WeightStore

rng = np.random.default_rng(0)
FEED = {'x': rng.standard_normal((3, 64)).astype(np.float32)}


def rounded(*shape):
    return rng.standard_normal(shape).astype(np.float16).astype(np.float32)


WEIGHTS = {
    'wide': rounded(64, 64),
    'fine': rng.standard_normal((64, 64)).astype(np.float32),  # float16 would round it
    'small': rounded(64),
}


def model(weights):
    nodes = [
        helper.make_node('MatMul', ['x', 'wide'], ['a']),
        helper.make_node('MatMul', ['a', 'fine'], ['b']),
        helper.make_node('Add', ['b', 'small'], ['y']),
    ]
    graph = helper.make_graph(
        nodes,
        'g',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [3, 64])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [3, 64])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=9)


@pytest.fixture
def graphs(tmp_path):
    """Two graphs beside the file of weights that they share."""
    made = [tmp_path / 'one.onnx', tmp_path / 'two.onnx']
    with WeightStore(tmp_path / 'stage.weights') as store:
        for path in made:
            inline = tmp_path / 'inline'
            inline.write_bytes(model(WEIGHTS).SerializeToString())
            open_draft(inline).write(path, store)
            inline.unlink()
    return made


def run(path):
    session = ort.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return session.run(None, FEED)[0]


def test_the_same_numbers_in_fewer_bytes(graphs):
    weights = graphs[0].parent / 'stage.weights'
    before, size = run(graphs[0]), weights.stat().st_size
    repack(graphs, weights)
    for path in graphs:
        np.testing.assert_array_equal(run(path), before)
    assert weights.stat().st_size == size - WEIGHTS['wide'].nbytes // 2
    assert sorted(p.name for p in weights.parent.iterdir()) == [
        'one.onnx',
        'stage.weights',
        'two.onnx',
    ]


def test_only_what_stays_exact_and_pays(graphs):
    repack(graphs, graphs[0].parent / 'stage.weights')
    stored = {t.name: t.data_type for t in onnx.load(graphs[0]).graph.initializer}
    assert stored == {
        'wide_half': TensorProto.FLOAT16,
        'fine': TensorProto.FLOAT,
        'small': TensorProto.FLOAT,
    }


@pytest.mark.parametrize('far', [7e4, 1e-9])
def test_what_float16_does_not_hold_stays(tmp_path, graphs, far):
    """Beyond its range, and below it."""
    weights = {**WEIGHTS, 'wide': WEIGHTS['wide'].copy()}
    weights['wide'][5, 6] = far
    inline, out = tmp_path / 'inline', tmp_path / 'out.onnx'
    inline.write_bytes(model(weights).SerializeToString())
    with WeightStore(tmp_path / 'w') as store:
        open_draft(inline).write(out, store)
    repack([out], tmp_path / 'w')
    assert stored_halves(onnx.load(out)) == {}


def test_read_back_they_are_float32(graphs):
    """Quantisation and calibration see the graph that was stored."""
    repack(graphs, graphs[0].parent / 'stage.weights')
    draft = open_draft(graphs[1])
    assert [n.op_type for n in draft.model.graph.node] == ['MatMul', 'MatMul', 'Add']
    assert {t.name for t in draft.model.graph.initializer} == set(WEIGHTS)
    assert {t.data_type for t in draft.model.graph.initializer} == {TensorProto.FLOAT}
    for name, weight in WEIGHTS.items():
        np.testing.assert_array_equal(draft.original(name), weight)
    twice = graphs[0].read_bytes()
    repack(graphs, graphs[0].parent / 'stage.weights')
    assert graphs[0].read_bytes() == twice


def test_a_half_that_something_reads_is_no_storage():
    proto = model(WEIGHTS)
    half = numpy_helper.from_array(WEIGHTS['wide'].astype(np.float16), 'h')
    proto.graph.initializer.append(half)
    proto.graph.node.insert(0, helper.make_node('Cast', ['h'], ['w'], to=TensorProto.FLOAT))
    assert stored_halves(proto) == {'h': 'w'}
    proto.graph.node.append(helper.make_node('Relu', ['h'], ['other']))
    assert stored_halves(proto) == {}


def test_onnx_runtime_judges_them(graphs):
    """Not the reference evaluator, which would be slow."""
    repack(graphs, graphs[0].parent / 'stage.weights')
    graph = load_graph(graphs[0])
    assert type(graph).__name__ == '_OrtGraph'
    np.testing.assert_array_equal(graph.run(FEED)['y'], run(graphs[0]))
