"""Quantised graphs against arithmetic done by hand, and everything that is refused."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

ml_dtypes = pytest.importorskip('ml_dtypes', reason="workshop only: pip install '.[export]'")
onnx = pytest.importorskip('onnx', reason="workshop only: pip install '.[export]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from vla_trt_ros.config import find_file  # noqa: E402
from vla_trt_ros.errors import BundleError, ConfigError  # noqa: E402
from vla_trt_ros.export.evaluate import load_graph  # noqa: E402
from vla_trt_ros.export.quantize.gemms import weight_key  # noqa: E402
from vla_trt_ros.export.quantize.numerics import to_fp8, to_int4, to_int8, to_nvfp4  # noqa: E402
from vla_trt_ros.export.quantize.ranges import ActivationRange  # noqa: E402
from vla_trt_ros.export.quantize.stage import quantize_stage  # noqa: E402
from vla_trt_ros.policies.pi05.spec import NANO as SIZES  # noqa: E402

NANO = find_file('bundles', 'nano', '')
SHORT = SIZES.prompt_buckets[0]
K, N, ROWS = 64, 48, 7
RNG = np.random.default_rng(3)
W = (RNG.standard_normal((K, N)) / 8).astype(np.float32)
BIAS = RNG.standard_normal(N).astype(np.float32)
X = RNG.standard_normal((1, ROWS, K)).astype(np.float32)


def denoise(steps):
    return NANO / f'denoise_{SHORT}_{steps}.onnx'


def bf16(x):
    return np.asarray(x, ml_dtypes.bfloat16).astype(np.float32)


def linear(path, weight=W, bias=BIAS, transposed=False, dtype=TensorProto.FLOAT):
    """x @ weight + bias as the graph of a vision stage."""
    init = [numpy_helper.from_array(bias, 'b')]
    nodes = []
    if transposed:
        init.append(numpy_helper.from_array(np.ascontiguousarray(weight.T), 'wt'))
        nodes.append(helper.make_node('Transpose', ['wt'], ['w'], perm=[1, 0]))
    else:
        init.append(numpy_helper.from_array(weight, 'w'))
    nodes += [
        helper.make_node('MatMul', ['x', 'w'], ['y'], name='gemm'),
        helper.make_node('Add', ['y', 'b'], ['image_tokens']),
    ]
    graph = helper.make_graph(
        nodes,
        'linear',
        [helper.make_tensor_value_info('x', dtype, [1, ROWS, K])],
        [helper.make_tensor_value_info('image_tokens', dtype, [1, ROWS, N])],
        init,
    )
    opset = [helper.make_opsetid('', 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def ranges(weight=W, x=X):
    channels = np.abs(x).max(axis=(0, 1))
    return {weight_key(weight): ActivationRange(float(channels.max()), 3.0, channels)}


def quantized(tmp_path, precision, stage='vision', source=None, **kwargs):
    source = source or linear(tmp_path / 'linear.onnx')
    out = tmp_path / f'linear.{precision}.onnx'
    kwargs.setdefault('ranges', ranges())
    made = quantize_stage(stage, precision, {source: out}, tmp_path / 'w.weights', **kwargs)
    return made, out


def run(path, x=X):
    return load_graph(path).run({'x': x})['image_tokens'].astype(np.float32)


def expected(precision):
    """The same GEMM by hand: round both sides, multiply in float64, round once."""
    x = bf16(X)
    if precision == 'bf16':
        return bf16(x) @ bf16(W)
    if precision == 'int4':
        q = to_int4(W, 'bfloat16')
        scales = np.repeat(bf16(q.scales), 64, axis=0)
        return x @ bf16(bf16(q.values) * scales)
    if precision == 'nvfp4':
        q = to_nvfp4(W, 'bfloat16')
        scales = bf16(bf16(q.scales) * bf16(q.tensor_scale))
        outer = bf16(np.abs(X).max() / (6 * 448))
        blocks = x.reshape(1, ROWS, -1, 16)
        inner = np.abs(blocks).max(-1, keepdims=True) / 6 / outer
        inner = inner.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
        rounded = (blocks / (inner * outer)).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
        x = bf16(rounded * bf16(inner * outer)).reshape(X.shape)
        return x @ bf16(bf16(q.values) * np.repeat(scales, 16, axis=0))
    largest, quantize = {'fp8': (448, to_fp8), 'int8': (127, to_int8)}[precision]
    scale = bf16(np.abs(X).max() / largest)
    kind = ml_dtypes.float8_e4m3fn if precision == 'fp8' else np.int8
    levels = bf16(x / scale).clip(-largest, largest)
    levels = np.rint(levels) if precision == 'int8' else levels
    x = bf16(levels.astype(kind).astype(np.float32) * scale)
    q = quantize(W, 'bfloat16')
    return x @ bf16(q.values.astype(np.float32) * bf16(q.scales))


@pytest.mark.parametrize('precision', ['bf16', 'fp8', 'int8', 'int4', 'nvfp4'])
def test_a_gemm_gives_what_the_format_says(tmp_path, precision):
    made, out = quantized(tmp_path, precision, smooth=False)
    onnx.checker.check_model(str(out), full_check=precision != 'nvfp4')
    wanted = bf16(bf16(expected(precision)) + bf16(BIAS))
    error = np.abs(run(out) - wanted)
    # Divisions before rounding differ in the last bit; a rounded level may then be the next one.
    assert np.median(error) <= np.abs(wanted).max() * 2**-9
    assert np.linalg.norm(error) < 0.01 * np.linalg.norm(wanted)
    assert made.quantized == (precision != 'bf16')
    assert made.boundary == 'bfloat16'


def test_errors_are_those_of_the_formats(tmp_path):
    exact = X @ W + BIAS
    off = {}
    for precision in ('bf16', 'int8', 'fp8', 'int4', 'nvfp4'):
        _, out = quantized(tmp_path, precision)
        off[precision] = np.linalg.norm(run(out) - exact) / np.linalg.norm(exact)
    assert off['bf16'] < 0.004 < off['int8'] < 0.015 < off['fp8'] < 0.05 < off['int4'] < 0.13
    assert 0.08 < off['nvfp4'] < 0.16


@pytest.mark.parametrize(
    ('precision', 'opset', 'kinds'),
    [
        ('fp8', 20, {'FLOAT8E4M3FN'}),
        ('int8', 20, {'INT8'}),
        ('int4', 21, {'INT4'}),
        ('nvfp4', 23, {'FLOAT4E2M1', 'FLOAT8E4M3FN'}),
    ],
)
def test_weights_are_stored_small_and_scales_in_the_compute_dtype(
    tmp_path, precision, opset, kinds
):
    _, out = quantized(tmp_path, precision)
    model = onnx.load(out)
    opsets = {o.domain: o.version for o in model.opset_import}
    assert opsets[''] == opset
    assert ('trt' in opsets) == (precision == 'nvfp4')
    types = {t.name: TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer}
    assert kinds <= set(types.values())
    assert set(types.values()) <= kinds | {'BFLOAT16'}
    assert 'w' not in types


def test_int8_for_onnx_runtime_is_float32_around_the_gemms(tmp_path):
    made, out = quantized(tmp_path, 'int8', cpu=True, ranges=None)
    assert made.boundary == 'float32'
    assert type(load_graph(out)).__name__ == '_OrtGraph'
    exact = X @ W + BIAS
    assert np.linalg.norm(run(out) - exact) < 0.015 * np.linalg.norm(exact)


def test_a_weight_that_is_transposed_in_the_graph_counts_too(tmp_path):
    source = linear(tmp_path / 't.onnx', transposed=True)
    made, out = quantized(tmp_path, 'fp8', source=source)
    _, plain = quantized(tmp_path, 'fp8')
    assert made.quantized == 1
    assert not [n for n in onnx.load(out).graph.node if n.op_type == 'Transpose']
    np.testing.assert_array_equal(run(out), run(plain))


def test_a_loud_channel_is_smoothed_in_int8(tmp_path):
    x = X.copy()
    x[..., 11] *= 80
    exact = x @ W + BIAS
    error = {}
    for smooth in (True, False):
        made, out = quantized(tmp_path, 'int8', ranges=ranges(x=x), smooth=smooth)
        assert made.smoothed == smooth
        error[smooth] = np.linalg.norm(run(out, x) - exact)
    assert error[True] < 0.6 * error[False]


@pytest.mark.parametrize(
    ('stage', 'file'),
    [('vision', 'vision'), ('prefix', f'prefix_{SHORT}'), ('denoise', f'denoise_{SHORT}_2')],
    ids=['vision', 'prefix', 'denoise'],
)
def test_what_stays_float32_in_a_half_precision_stage(tmp_path, stage, file):
    out = tmp_path / 'stage.onnx'
    made = quantize_stage(stage, 'bf16', {NANO / f'{file}.onnx': out}, tmp_path / 'stage.weights')
    onnx.checker.check_model(str(out), full_check=True)
    model = onnx.shape_inference.infer_shapes(onnx.load(out))
    types = {t.name: t.data_type for t in model.graph.initializer}
    for v in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        types[v.name] = v.type.tensor_type.elem_type
    made_of = {
        op: {types[n.input[0]] for n in model.graph.node if n.op_type == op}
        for op in ('Pow', 'ReduceMean', 'Cos', 'Softmax', 'Gelu', 'Conv')
    }
    for op in ('Pow', 'ReduceMean', 'Cos', 'Conv'):
        assert made_of[op] <= {TensorProto.FLOAT}, op
    assert made_of['Softmax'] == made_of['Gelu'] == {TensorProto.BFLOAT16}
    gemms = Counter(
        (types[n.input[0]], types[n.input[1]]) for n in model.graph.node if n.op_type == 'MatMul'
    )
    half, full = (TensorProto.BFLOAT16,) * 2, (TensorProto.FLOAT,) * 2
    assert set(gemms) == ({half, full} if stage == 'denoise' else {half})
    assert gemms[full] == (4 if stage == 'denoise' else 0)  # in and out, twice
    handed_on = {'image_tokens', 'keys', 'values'}
    for v in (*model.graph.input, *model.graph.output):
        if types[v.name] in (TensorProto.FLOAT, TensorProto.BFLOAT16):
            assert (types[v.name] == TensorProto.BFLOAT16) == (v.name in handed_on), v.name
    assert made.quantized == 0


def test_a_mask_stays_finite_in_float16(tmp_path):
    out = tmp_path / 'denoise.onnx'
    quantize_stage('denoise', 'fp16', {denoise(1): out}, tmp_path / 'd.weights')
    for tensor in onnx.load(out).graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            assert np.isfinite(numpy_helper.to_array(tensor)).all(), tensor.name


def test_a_bfloat16_source_gives_the_same_float32_graph_again(tmp_path):
    half, wide = tmp_path / 'half.onnx', tmp_path / 'wide.onnx'
    quantize_stage('vision', 'bf16', {NANO / 'vision.onnx': half}, tmp_path / 'h.weights')
    quantize_stage('vision', 'fp32', {half: wide}, tmp_path / 'w.weights')
    size = SIZES.image_size
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 3, size, size)).astype(np.float32)
    exact, back = (
        load_graph(p).run({'pixels': pixels})['image_tokens'] for p in (NANO / 'vision.onnx', wide)
    )
    assert back.dtype == np.float32
    assert 0 < np.linalg.norm(back - exact) < 0.02 * np.linalg.norm(exact)


def test_actions_in_and_out_are_kept(tmp_path):
    out = tmp_path / 'denoise.onnx'
    made = quantize_stage('denoise', 'int4', {denoise(2): out}, tmp_path / 'd.w')
    assert made.quantized == 7 * SIZES.depth
    assert len(made.kept) == 2
    assert all('latent actions' in line for line in made.kept)


def test_graphs_of_a_stage_share_their_weights(tmp_path):
    graphs = {denoise(n): tmp_path / f'd{n}.onnx' for n in (1, 2, 10)}
    three = quantize_stage('denoise', 'int4', graphs, tmp_path / 'three.weights')
    one = quantize_stage(
        'denoise',
        'int4',
        {denoise(1): tmp_path / 'o'},
        tmp_path / 'one.weights',
    )
    assert three.weight_bytes == one.weight_bytes
    assert three.weight_bytes < (NANO / 'denoise.weights').stat().st_size


def test_the_key_of_a_gemm_is_that_of_its_rounded_weight():
    assert weight_key(W) == weight_key(W.astype(ml_dtypes.bfloat16))
    assert weight_key(W) != weight_key(W.T)
    other = W.copy()
    other[3, 3] += 0.1
    assert weight_key(W) != weight_key(other)


def test_refusals(tmp_path):
    with pytest.raises(ConfigError, match="precision 'fp6' is none of"):
        quantized(tmp_path, 'fp6')
    with pytest.raises(ConfigError, match='prefix: fp16 is refused'):
        quantized(tmp_path, 'fp16', stage='prefix')
    with pytest.raises(ConfigError, match='fp8 needs the ranges of activations'):
        quantized(tmp_path, 'fp8', ranges=None)
    with pytest.raises(ConfigError, match='no graph was given'):
        quantize_stage('vision', 'bf16', {}, tmp_path / 'w')
    with pytest.raises(BundleError, match="'gemm' with weight .* the ranges belong to another"):
        quantized(tmp_path, 'fp8', ranges=ranges(weight=W + 1))


@pytest.mark.parametrize('precision', ['fp8', 'int8', 'nvfp4'])
@pytest.mark.parametrize('amax', [0.0, float('nan'), float('inf')])
def test_activations_that_were_never_anything_but_zero_give_no_scale(tmp_path, precision, amax):
    (key,) = ranges()
    bad = {key: ActivationRange(amax, amax, np.full(K, amax, np.float32))}
    with pytest.raises(ConfigError, match="input of GEMM 'gemm' was (0|nan|inf) at most"):
        quantized(tmp_path, precision, ranges=bad, smooth=False)


@pytest.mark.parametrize('precision', ['bf16', 'fp8', 'int4'])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_damaged_weights(tmp_path, precision, value):
    weight, bias = W.copy(), BIAS.copy()
    weight[5, 6] = bias[2] = value
    source = linear(tmp_path / 'bad.onnx', weight=weight)
    with pytest.raises(BundleError, match=r"weight 'w\w*' holds 1 NaN or Inf of 3072"):
        quantized(tmp_path, precision, source=source, ranges=ranges(weight))
    source = linear(tmp_path / 'bias.onnx', bias=bias)
    with pytest.raises(BundleError, match=r"weight 'b\w*' holds 1 NaN or Inf of 48"):
        quantized(tmp_path, precision, source=source)


def test_files_that_are_no_graph_or_lost_their_weights(tmp_path):
    text = tmp_path / 'text.onnx'
    text.write_text('not a graph at all')
    with pytest.raises(BundleError, match='text.onnx cannot be read as ONNX'):
        quantized(tmp_path, 'bf16', source=text)
    alone = tmp_path / 'vision.onnx'
    alone.write_bytes((NANO / 'vision.onnx').read_bytes())
    with pytest.raises(BundleError, match='cannot be read from vision.weights'):
        quantized(tmp_path, 'bf16', source=alone)
    (tmp_path / 'vision.weights').write_bytes((NANO / 'vision.weights').read_bytes()[:5000])
    with pytest.raises(BundleError, match='cannot be read from vision.weights'):
        quantized(tmp_path, 'bf16', source=alone)


def test_weights_outside_the_folder_are_not_followed(tmp_path):
    source = linear(tmp_path / 'linear.onnx')
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, '../secret.weights', 0, 12)
        tensor.ClearField('raw_data')
    Path(source).write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="'../secret.weights', which is not a file beside"):
        quantized(tmp_path, 'bf16', source=source)


def test_a_weight_that_float16_does_not_hold(tmp_path):
    bias = BIAS.copy()
    bias[4] = 70_000
    source = linear(tmp_path / 'large.onnx', bias=bias)
    with pytest.raises(BundleError, match='overflowed when it was cast'):
        quantized(tmp_path, 'fp16', source=source)
