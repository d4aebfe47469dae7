"""int8 as ONNX Runtime runs it on a CPU, against arithmetic done by hand."""

from collections import Counter

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason="workshop only: pip install '.[export]'")
pytest.importorskip('ml_dtypes', reason="workshop only: pip install '.[export]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from vla_trt_ros.errors import BundleError, ConfigError  # noqa: E402
from vla_trt_ros.export.evaluate import load_graph  # noqa: E402
from vla_trt_ros.export.quantize.numerics import to_int8, to_int8_pairs  # noqa: E402
from vla_trt_ros.export.quantize.stage import quantize_stage  # noqa: E402

RNG = np.random.default_rng(7)
K, N, ROWS = 48, 20, 9
WEIGHTS = {
    'query': RNG.standard_normal((K, N)).astype(np.float32) / 7,
    'value': RNG.standard_normal((K, N)).astype(np.float32) / 7,
    'bias': RNG.standard_normal(N).astype(np.float32),
    'narrow': RNG.standard_normal((12, N)).astype(np.float32),
}
X = RNG.standard_normal((1, ROWS, K)).astype(np.float32) + 0.5


def two_products(path, weights=WEIGHTS, add='bias'):
    """(x @ query + bias, x @ value, x's first columns @ narrow): readers of one activation."""
    matmul = [
        helper.make_node('MatMul', ['x', 'query'], ['p'], name='first'),
        helper.make_node('MatMul', ['x', 'value'], ['v'], name='second'),
        helper.make_node('Add', [add, 'p'] if add == 'bias' else ['p', add], ['q']),
        helper.make_node('Slice', ['x', 'from', 'to', 'axis'], ['part']),
        helper.make_node('MatMul', ['part', 'narrow'], ['n']),
    ]
    numbers = [('from', 0), ('to', 12), ('axis', 2)]
    init = [numpy_helper.from_array(w, name) for name, w in weights.items()]
    init += [numpy_helper.from_array(np.array([value]), name) for name, value in numbers]
    graph = helper.make_graph(
        matmul,
        'g',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, ROWS, K])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, ROWS, N]) for n in 'qvn'],
        init,
    )
    opset = [helper.make_opsetid('', 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def made(tmp_path, source=None, **kwargs):
    source = source or two_products(tmp_path / 'g.onnx')
    out = tmp_path / 'g.int8.onnx'
    weights = tmp_path / 'w.weights'
    return quantize_stage('vision', 'int8', {source: out}, weights, cpu=True, **kwargs), out


def levels(x):
    """uint8 over the range of ``x`` and zero, as DynamicQuantizeLinear has it."""
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = np.float32((high - low) / 255)
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale


def test_products_are_those_of_rounded_sides(tmp_path):
    stage, out = made(tmp_path)
    found = load_graph(out).run({'x': X})
    for name, weight, bias in (('q', 'query', WEIGHTS['bias']), ('v', 'value', 0)):
        q = to_int8_pairs(WEIGHTS[weight])
        wanted = levels(X) @ (q.values * q.scales) + bias
        np.testing.assert_allclose(found[name], wanted, atol=2e-5)
        exact = X @ WEIGHTS[weight] + bias
        assert 1e-3 < np.linalg.norm(found[name] - exact) / np.linalg.norm(exact) < 0.02
    np.testing.assert_allclose(found['n'], X[..., :12] @ WEIGHTS['narrow'], atol=1e-5)
    assert (stage.quantized, stage.smoothed, stage.boundary) == (2, 0, 'float32')
    assert stage.kept == ('narrow [12, 20]: 12 rows are no multiple of 16',)


def test_an_activation_is_rounded_once_and_a_bias_costs_nothing(tmp_path):
    _, out = made(tmp_path)
    model = onnx.load(out)
    assert Counter(n.op_type for n in model.graph.node) == {
        'DynamicQuantizeLinear': 1,
        'MatMulIntegerToFloat': 2,
        'Slice': 1,
        'MatMul': 1,
    }
    assert {o.domain: o.version for o in model.opset_import} == {'': 20, 'com.microsoft': 1}
    types = {t.name: t.data_type for t in model.graph.initializer}
    assert types['query_q'] == TensorProto.INT8
    assert 'query' not in types


def test_an_add_that_is_no_bias_stays(tmp_path):
    source = two_products(tmp_path / 'g.onnx', add='v')  # the other product
    _, out = made(tmp_path, source)
    assert [n.op_type for n in onnx.load(out).graph.node].count('Add') == 1
    found = load_graph(out).run({'x': X})
    exact = X @ (WEIGHTS['query'] + WEIGHTS['value'])
    assert np.linalg.norm(found['q'] - exact) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize('x', [np.zeros_like(X), -np.abs(X), X * 1e-30])
def test_inputs_at_the_edge(tmp_path, x):
    _, out = made(tmp_path)
    found = load_graph(out).run({'x': x})['v']
    exact = x @ WEIGHTS['value']
    assert np.linalg.norm(found - exact) <= 0.02 * np.linalg.norm(exact)


def test_pairs_of_rows_cannot_saturate_16_bits():
    w = WEIGHTS['query'].copy()
    w[10:12] *= 30
    size = np.abs(to_int8_pairs(w).values.astype(int))
    assert (255 * (size[0::2] + size[1::2])).max() <= 2**15 - 1
    assert ((size[0::2] + size[1::2]).max(axis=0) >= 126).all()  # no coarser than it has to be
    plain = np.abs(to_int8(w, 'float32').values.astype(int))
    assert (255 * (plain[10] + plain[11])).max() > 2**15


def test_weights_in_bytes_are_off_by_half_a_level_at_most():
    q = to_int8_pairs(WEIGHTS['query'])
    assert q.values.dtype == np.int8
    assert (np.abs(q.values * q.scales - WEIGHTS['query']) <= 0.5001 * q.scales).all()
    zeros = to_int8_pairs(np.zeros((4, 3), np.float32))
    assert (zeros.values == 0).all()
    assert (zeros.scales == 1).all()


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    bad = {**WEIGHTS, 'value': WEIGHTS['value'].copy()}
    bad['value'][3, 4] = np.inf
    with pytest.raises(BundleError, match="weight 'value' holds 1 NaN or Inf of 960"):
        made(tmp_path, two_products(tmp_path / 'bad.onnx', bad))


def test_only_int8_has_a_form_for_cpus(tmp_path):
    source = two_products(tmp_path / 'g.onnx')
    graphs = {source: tmp_path / 'out.onnx'}
    with pytest.raises(ConfigError, match='int4 graphs do not run on a CPU; choose int8 or fp32'):
        quantize_stage('vision', 'int4', graphs, tmp_path / 'w', cpu=True)
