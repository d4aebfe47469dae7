"""Attention with its heads given back computes what the folded one does."""

import numpy as np
import pytest

pytest.importorskip('onnx', reason="workshop only: pip install '.[trt-build]'")

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from vla_trt_ros.config import share_dir
from vla_trt_ros.export.trt.attention import is_half, unfold_attention
from vla_trt_ros.policies.pi05.spec import NANO as SIZES

NANO = share_dir() / 'bundles' / 'nano'
SHORT, DEPTH = SIZES.prompt_buckets[0], SIZES.depth
TOKENS = SIZES.image_tokens + SHORT
# File, attentions, queries of one head.
GRAPHS = [
    (f'prefix_{SHORT}.onnx', DEPTH - 1, TOKENS),
    (f'denoise_{SHORT}_1.onnx', DEPTH, 10),
    (f'denoise_{SHORT}_3.onnx', 3 * DEPTH, 10),
]


def load(name):
    return onnx.load(str(NANO / name))


def run(model):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    rng = np.random.default_rng(0)
    feeds = {}
    for node in session.get_inputs():
        if node.type == 'tensor(bool)':
            feeds[node.name] = np.arange(np.prod(node.shape)).reshape(node.shape) % 7 != 3
        elif node.type == 'tensor(int64)':
            feeds[node.name] = rng.integers(0, 700, node.shape)
        else:
            feeds[node.name] = rng.standard_normal(node.shape).astype(np.float32)
    return session.run(None, feeds)


def with_whole_bias(model, queries):
    """ONNX Runtime wants the rows of Attention's mask; ONNX and TensorRT broadcast them."""
    rows = helper.make_tensor('rows', TensorProto.INT64, [4], [1, 1, queries, 1])
    model.graph.initializer.append(rows)
    for i, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type == 'Attention':
            whole = f'{node.name}_bias'
            expand = helper.make_node('Expand', [node.input[3], 'rows'], [whole])
            node.input[3] = whole
            model.graph.node.insert(i, expand)
    return model


def ops(model, kind):
    return sum(node.op_type == kind for node in model.graph.node)


@pytest.mark.parametrize(('name', 'attentions', 'queries'), GRAPHS)
def test_operator_form(name, attentions, queries):
    folded, model = load(name), load(name)
    assert unfold_attention(model, 'operator') == attentions
    assert ops(model, 'Attention') == attentions
    assert ops(model, 'Softmax') == 0
    assert {o.domain: o.version for o in model.opset_import}[''] == 24
    onnx.checker.check_model(model, full_check=True)
    for got, wanted in zip(run(with_whole_bias(model, queries)), run(folded), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('name', 'attentions', 'queries'), GRAPHS)
def test_expanded_form(name, attentions, queries):
    folded, model = load(name), load(name)
    assert unfold_attention(model, 'expanded') == attentions
    assert ops(model, 'Softmax') == attentions
    assert ops(model, 'Expand') == ops(folded, 'Expand') + 2 * attentions
    assert {o.domain: o.version for o in model.opset_import}[''] == 20
    onnx.checker.check_model(model, full_check=True)
    for got, wanted in zip(run(model), run(folded), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_a_wrong_scale_would_be_noticed():
    model = load(f'prefix_{SHORT}.onnx')
    unfold_attention(model, 'operator')
    node = next(n for n in model.graph.node if n.op_type == 'Attention')
    (scale,) = (a for a in node.attribute if a.name == 'scale')
    assert scale.f == pytest.approx(SIZES.prefix.head_dim**-0.5)
    scale.f *= 2
    wanted, got = run(load(f'prefix_{SHORT}.onnx')), run(with_whole_bias(model, TOKENS))
    assert np.abs(got[0] - wanted[0]).max() > 1e-3


def test_several_heads_are_left_alone():
    model = load('vision.onnx')
    before = model.SerializeToString()
    assert unfold_attention(model, 'operator') == 0
    assert model.SerializeToString() == before


def test_what_looks_alike_is_left_alone():
    model = load(f'prefix_{SHORT}.onnx')
    softmax = next(n for n in model.graph.node if n.op_type == 'Softmax')
    model.graph.output.append(
        helper.make_tensor_value_info(softmax.output[0], TensorProto.FLOAT, None)
    )
    reader = next(n for n in model.graph.node if softmax.output[0] in n.input)
    model.graph.node.append(helper.make_node('Neg', [reader.output[0]], ['spied']))
    assert unfold_attention(model, 'operator') == 2  # the third's inside is read by others


def test_unused_weights_go():
    model = load(f'prefix_{SHORT}.onnx')
    before = {t.name for t in model.graph.initializer}
    unfold_attention(model, 'operator')
    left = {t.name for t in model.graph.initializer}
    used = {name for node in model.graph.node for name in node.input}
    assert left < before
    assert left <= used


def test_is_half_reads_the_scale_of_the_logits():
    model = load('vision.onnx')
    assert not is_half(model)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and list(tensor.dims) in ([], [1]):
            value = onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()
            tensor.CopyFrom(
                helper.make_tensor(tensor.name, TensorProto.FLOAT16, tensor.dims, value)
            )
    assert is_half(model)
    assert not is_half(helper.make_model(helper.make_graph([], 'empty', [], [])))
