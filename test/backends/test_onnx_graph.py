"""ONNX files run by torch's operations: equal to ONNX Runtime, on the CPU.

The same operations run on a GPU (test_onnx_graph_on_gpu.py).
"""
# ruff: noqa: E501  a case a line

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
onnx = pytest.importorskip('onnx', reason="needs onnx: pip install '.[export]'")

import cv2  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from vla_trt_ros.backends.base import EngineSource  # noqa: E402
from vla_trt_ros.backends.onnx_graph.engine import on_cpu  # noqa: E402
from vla_trt_ros.backends.onnx_graph.operators import OPERATORS  # noqa: E402
from vla_trt_ros.backends.onnx_graph.plan import load_plan  # noqa: E402
from vla_trt_ros.backends.registry import load_engine  # noqa: E402
from vla_trt_ros.bundle import open_bundle  # noqa: E402
from vla_trt_ros.config import share_dir  # noqa: E402
from vla_trt_ros.datatypes import TensorSpec  # noqa: E402
from vla_trt_ros.errors import BackendError  # noqa: E402
from vla_trt_ros.preprocess.letterbox import draw_letterbox, letterbox  # noqa: E402

RECORDED = sorted((Path(__file__).parent.parent / 'perception' / 'recorded').glob('*.jpg'))
BUNDLES = ('sim-objects', 'sim-gripper', 'sim-opening')


def source_of(name, precision):
    bundle = open_bundle(share_dir() / 'bundles' / name)
    (entry,) = [s for s in bundle.manifest.sources if s.precision == precision]
    return EngineSource(name, bundle.file(entry.file), entry.inputs, entry.outputs)


def pictures(side):
    """float32 [1, 3, side, side], 0 to 1, of what the robot's cameras saw."""
    for path in RECORDED:
        image = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        square = np.empty((side, side, 3), np.uint8)
        draw_letterbox(image, letterbox(image.shape[1], image.shape[0], side), square)
        yield (square.transpose(2, 0, 1)[None] / 255).astype(np.float32)


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
@pytest.mark.parametrize('name', BUNDLES)
def test_bundled_networks_are_those_of_onnx_runtime(name, precision):
    source = source_of(name, precision)
    (images,), (output,) = source.inputs, source.outputs
    theirs = load_engine('onnxruntime', source, {})
    with on_cpu(source, {}) as engine:
        for picture in pictures(images.shape[2]):
            for one in (engine, theirs):
                one.inputs[images.name][...] = picture
                one.enqueue()
            found, wanted = engine.outputs[output.name][0], theirs.outputs[output.name][0]
            if name == 'sim-objects':  # below, equal scores may stand in another order
                assert (wanted[:, 4] > 0.25).sum() >= 2
                found, wanted = found[wanted[:, 4] > 0.25], wanted[wanted[:, 4] > 0.25]
            # Pixels of 320, or logits up to 20; float16 differs by the order of its sums.
            atol = 1e-3 if precision == 'fp32' else 0.2
            np.testing.assert_allclose(found, wanted, atol=atol)


def graph(folder, nodes, inputs, outputs, constants=(), opset=20):
    """A source of the one-graph file; ``inputs`` are name to shape, ``outputs`` to (shape, type)."""
    kinds = {'float32': TensorProto.FLOAT, 'int64': TensorProto.INT64, 'bool': TensorProto.BOOL}
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    made = [helper.make_tensor_value_info(n, kinds[k], s) for n, (s, k) in outputs.items()]
    held = [numpy_helper.from_array(np.asarray(v), n) for n, v in dict(constants).items()]
    model = helper.make_model(
        helper.make_graph(nodes, 'test', infos, made, held),
        opset_imports=[helper.make_opsetid('', opset)],
        ir_version=8,
    )
    path = folder / 'net.onnx'
    path.write_bytes(model.SerializeToString())
    return EngineSource(
        'net',
        path,
        tuple(TensorSpec(n, tuple(s), 'float32') for n, s in inputs.items()),
        tuple(TensorSpec(n, tuple(s), k) for n, (s, k) in outputs.items()),
    )


def ints(*values):
    return np.array(values, np.int64)


SHAPE = (1, 4, 6, 8)
WEIGHT = np.random.default_rng(5).normal(size=(6, 2, 3, 3)).astype(np.float32)
ONE = np.random.default_rng(6).normal(size=(4,)).astype(np.float32)
# Operator, shapes of outputs, attributes, constants behind x.
CASES = [
    ('Abs', [SHAPE], {}, []),
    ('Add', [SHAPE], {}, [ONE.reshape(4, 1, 1)]),
    ('ArgMax', [(1, 1, 6, 8)], {'axis': 1}, []),
    ('AveragePool', [(1, 4, 3, 4)], {'kernel_shape': [2, 2], 'strides': [2, 2]}, []),
    ('AveragePool', [SHAPE], {'kernel_shape': [3, 3], 'pads': [1, 1, 1, 1]}, []),
    ('BatchNormalization', [SHAPE], {'epsilon': 1e-3}, [ONE, ONE + 1, ONE, ONE**2 + 0.1]),
    ('Ceil', [SHAPE], {}, []),
    ('Clip', [SHAPE], {}, [np.float32(-0.5), np.float32(0.25)]),
    ('Clip', [SHAPE], {}, [None, np.float32(0.25)]),
    ('Concat', [(1, 8, 6, 8)], {'axis': 1}, [WEIGHT[:1, :1, :1, :1].repeat(4, 1).repeat(6, 2).repeat(8, 3)]),
    ('Conv', [(1, 6, 6, 8)], {'group': 2, 'pads': [1, 1, 1, 1]}, [WEIGHT]),
    ('Conv', [(1, 6, 3, 4)], {'group': 2, 'pads': [0, 0, 1, 1], 'strides': [2, 2]}, [WEIGHT, WEIGHT[:, 0, 0, 0]]),
    ('Conv', [(1, 6, 2, 4)], {'group': 2, 'dilations': [2, 2]}, [WEIGHT]),
    ('ConvTranspose', [(1, 4, 12, 16)], {'group': 1, 'strides': [2, 2], 'kernel_shape': [2, 2]}, [WEIGHT[:4, :1].repeat(4, 1)[..., :2, :2]]),
    ('Cos', [SHAPE], {}, []),
    ('CumSum', [SHAPE], {}, [ints(2)[0]]),
    ('Div', [SHAPE], {}, [np.float32(3)]),
    ('Erf', [SHAPE], {}, []),
    ('Exp', [SHAPE], {}, []),
    ('Expand', [(3, 4, 6, 8)], {}, [ints(3, 1, 1, 8)]),
    ('Flatten', [(4, 48)], {'axis': 2}, []),
    ('Floor', [SHAPE], {}, []),
    ('Gather', [(1, 4, 8)], {'axis': 2}, [ints(-2)[0]]),
    ('Gather', [(1, 2, 2, 6, 8)], {'axis': 1}, [ints(3, -1, 0, 2).reshape(2, 2)]),
    ('GatherElements', [(1, 4, 6, 2)], {'axis': 3}, [np.arange(48).reshape(1, 4, 6, 2) % 8]),
    ('Gelu', [SHAPE], {'approximate': 'tanh'}, []),
    ('GlobalAveragePool', [(1, 4, 1, 1)], {}, []),
    ('HardSigmoid', [SHAPE], {'alpha': 1 / 6}, []),
    ('HardSwish', [SHAPE], {}, []),
    ('LayerNormalization', [SHAPE], {'axis': -1}, [np.arange(8, dtype=np.float32)]),
    ('LeakyRelu', [SHAPE], {'alpha': 0.2}, []),
    ('MatMul', [(1, 4, 6, 3)], {}, [np.arange(24, dtype=np.float32).reshape(8, 3)]),
    ('Max', [SHAPE], {}, [np.float32(0), ONE.reshape(4, 1, 1)]),
    ('MaxPool', [SHAPE], {'kernel_shape': [5, 5], 'pads': [2, 2, 2, 2]}, []),
    ('MaxPool', [(1, 4, 3, 4)], {'kernel_shape': [3, 3], 'pads': [0, 0, 1, 1], 'strides': [2, 2]}, []),
    ('MaxPool', [(1, 4, 3, 4)], {'kernel_shape': [3, 3], 'strides': [2, 2], 'ceil_mode': 1}, []),
    ('Min', [SHAPE], {}, [np.float32(0)]),
    ('Mod', [SHAPE], {'fmod': 1}, [np.float32(0.4)]),
    ('Mul', [SHAPE], {}, [ONE.reshape(4, 1, 1)]),
    ('Neg', [SHAPE], {}, []),
    ('Pow', [SHAPE], {}, [ints(2)[0]]),
    ('Reciprocal', [SHAPE], {}, []),
    ('ReduceMax', [(1, 4, 1, 8)], {}, [ints(2)]),
    ('ReduceMean', [(1, 4)], {'keepdims': 0}, [ints(2, 3)]),
    ('ReduceMean', [()], {'keepdims': 0}, []),
    ('ReduceMin', [(1, 4, 6)], {'keepdims': 0}, [ints(-1)]),
    ('ReduceSum', [(1, 1, 6, 8)], {}, [ints(1)]),
    ('Relu', [SHAPE], {}, []),
    ('Reshape', [(1, 24, 8)], {}, [ints(0, -1, 8)]),
    ('Resize', [(1, 4, 12, 16)], {'coordinate_transformation_mode': 'asymmetric', 'nearest_mode': 'floor'}, [None, np.array([1, 1, 2, 2], np.float32)]),
    ('Resize', [(1, 4, 9, 12)], {'coordinate_transformation_mode': 'asymmetric', 'nearest_mode': 'floor'}, [None, np.array([1, 1, 1.5, 1.5], np.float32)]),
    ('Resize', [(1, 4, 18, 16)], {}, [None, None, ints(1, 4, 18, 16)]),
    ('Resize', [(1, 4, 12, 16)], {'mode': 'linear'}, [None, np.array([1, 1, 2, 2], np.float32)]),
    ('Sigmoid', [SHAPE], {}, []),
    ('Slice', [(1, 2, 6, 3)], {}, [ints(1, -7), ints(3, 99), ints(1, 3), ints(1, 3)]),
    ('Softmax', [SHAPE], {'axis': 1}, []),
    ('Split', [(1, 1, 6, 8), (1, 3, 6, 8)], {'axis': 1}, [ints(1, 3)]),
    ('Split', [(1, 4, 6, 3), (1, 4, 6, 3), (1, 4, 6, 2)], {'axis': 3, 'num_outputs': 3}, []),
    ('Squeeze', [(4, 6, 8)], {}, [ints(0)]),
    ('Squeeze', [(4, 6, 8)], {}, []),
    ('Sub', [SHAPE], {}, [ONE.reshape(4, 1, 1)]),
    ('Sum', [SHAPE], {}, [ONE.reshape(4, 1, 1), np.float32(1)]),
    ('Tanh', [SHAPE], {}, []),
    ('Tile', [(1, 4, 12, 24)], {}, [ints(1, 1, 2, 3)]),
    ('Transpose', [(8, 1, 6, 4)], {'perm': [3, 0, 2, 1]}, []),
    ('Transpose', [(8, 6, 4, 1)], {}, []),
    ('Unsqueeze', [(1, 1, 4, 6, 8, 1)], {}, [ints(-1, 0)]),
]  # fmt: skip


def both(source, *arrays):
    """Outputs of ONNX Runtime and ours."""
    results = []
    for make in (lambda: load_engine('onnxruntime', source, {}), lambda: on_cpu(source, {})):
        with make() as engine:
            for spec, array in zip(source.inputs, arrays, strict=True):
                engine.inputs[spec.name][...] = array
            engine.enqueue()
            results.append([engine.outputs[s.name].copy() for s in source.outputs])
    return results


def ramp(shape):
    """-2 to 2, each value once, in no order."""
    values = np.linspace(-2, 2, int(np.prod(shape)), dtype=np.float32)
    return np.random.default_rng(1).permutation(values).reshape(shape)


@pytest.mark.parametrize(('kind', 'shapes', 'attributes', 'rest'), CASES)
def test_operators_are_those_of_onnx_runtime(tmp_path, kind, shapes, attributes, rest):
    names = ['' if v is None else f'c{i}' for i, v in enumerate(rest)]
    outputs = [f'y{i}' for i in range(len(shapes))]
    nodes = [helper.make_node(kind, ['x', *names], outputs, 'the one', **attributes)]
    dtype = 'int64' if kind == 'ArgMax' else 'float32'
    constants = {n: v for n, v in zip(names, rest, strict=True) if n}
    made = {name: (shape, dtype) for name, shape in zip(outputs, shapes, strict=True)}
    source = graph(tmp_path, nodes, {'x': SHAPE}, made, constants)
    theirs, ours = both(source, ramp(SHAPE))
    for wanted, found in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6)


def test_comparisons_choices_and_the_best(tmp_path):
    node = helper.make_node
    nodes = [
        node('Greater', ['x', 'zero'], ['above']),
        node('LessOrEqual', ['x', 'one'], ['below']),
        node('And', ['above', 'below'], ['both']),
        node('Not', ['both'], ['outside']),
        node('Where', ['outside', 'zero', 'x'], ['chosen']),
        node('Equal', ['chosen', 'x'], ['kept']),
        node('Cast', ['kept'], ['numbers'], to=TensorProto.FLOAT),
        node('Flatten', ['chosen'], ['flat']),
        node('TopK', ['flat', 'count'], ['best', 'places'], axis=1),
        node('Mod', ['places', 'wide'], ['columns']),
        node('Div', ['places', 'wide'], ['rows']),
        node('GatherElements', ['flat', 'columns'], ['again'], axis=1),
    ]
    constants = {'zero': np.float32(0), 'one': np.float32(1), 'count': ints(5), 'wide': ints(8)[0]}
    outputs = {'numbers': (SHAPE, 'float32'), 'best': ((1, 5), 'float32')}
    outputs |= {n: ((1, 5), 'int64') for n in ('columns', 'rows')}
    source = graph(
        tmp_path, nodes, {'x': SHAPE}, outputs | {'again': ((1, 5), 'float32')}, constants
    )
    for wanted, found in zip(*both(source, ramp(SHAPE)), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(('across', 'along'), [(0, 0), (1, 0), (0, 1)])
def test_gemm(tmp_path, across, along):
    rng = np.random.default_rng(2)
    shape = (5, 3) if across else (3, 5)
    weights = rng.normal(size=(4, 5) if along else (5, 4)).astype(np.float32)
    for constants in ({'w': weights}, {'w': weights, 'c': ONE}):
        node = helper.make_node(
            'Gemm', ['x', *constants], ['y'], transA=across, transB=along, alpha=0.5, beta=2.0
        )
        source = graph(tmp_path, [node], {'x': shape}, {'y': ((3, 4), 'float32')}, constants)
        (wanted,), (found,) = both(source, rng.normal(size=shape))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_what_does_not_depend_on_the_picture_is_computed_at_load(tmp_path):
    node = helper.make_node
    nodes = [
        node('Shape', ['x'], ['shape']),
        node('Gather', ['shape', 'two'], ['tall'], axis=0),
        node('Unsqueeze', ['tall', 'zero'], ['tall_1']),
        node('ConstantOfShape', ['tall_1'], ['zeros']),
        node('Range', ['begin', 'tall', 'step'], ['rows']),
        node('Cast', ['rows'], ['floats'], to=TensorProto.FLOAT),
        node('Add', ['zeros', 'floats'], ['sum']),
        node('Reshape', ['sum', 'as'], ['column']),
        node('Add', ['x', 'column'], ['y']),
    ]
    constants = {
        'two': ints(2)[0],
        'zero': ints(0),
        'begin': ints(0)[0],
        'step': ints(1)[0],
        'as': ints(-1, 1),
    }
    source = graph(tmp_path, nodes, {'x': SHAPE}, {'y': (SHAPE, 'float32')}, constants)
    plan = load_plan(source.file, 'net', source.inputs, source.outputs)
    assert [step.kind for step in plan.steps] == ['Add']
    (wanted,), (found,) = both(source, ramp(SHAPE))
    np.testing.assert_array_equal(found, wanted)


def test_x_times_its_sigmoid_is_one_operation(tmp_path):
    node = helper.make_node
    nodes = [
        node('Sigmoid', ['x'], ['s']),
        node('Mul', ['x', 's'], ['a']),
        node('Sigmoid', ['a'], ['t']),
        node('Mul', ['t', 'x'], ['b']),  # of another tensor
        node('Sigmoid', ['b'], ['u']),
        node('Mul', ['b', 'u'], ['c']),
        node('Add', ['c', 'u'], ['y']),  # needed again
    ]
    source = graph(tmp_path, nodes, {'x': SHAPE}, {'y': (SHAPE, 'float32')})
    plan = load_plan(source.file, 'net', source.inputs, source.outputs)
    kinds = [step.kind for step in plan.steps]
    assert kinds == ['Silu', 'Sigmoid', 'Mul', 'Sigmoid', 'Mul', 'Add']
    (wanted,), (found,) = both(source, ramp(SHAPE))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_nothing_is_held_longer_than_it_is_needed(tmp_path):
    nodes = [helper.make_node('Relu', [f'x{i}'], [f'x{i + 1}']) for i in range(4)]
    source = graph(tmp_path, nodes, {'x0': SHAPE}, {'x4': (SHAPE, 'float32')})
    plan = load_plan(source.file, 'net', source.inputs, source.outputs)
    assert [step.frees for step in plan.steps] == [('x0',), ('x1',), ('x2',), ('x3',)]


def one(folder, kind, inputs=('x',), constants=(), opset=20, **attributes):
    node = helper.make_node(kind, list(inputs), ['y'], 'the one', **attributes)
    return graph(folder, [node], {'x': SHAPE}, {'y': (SHAPE, 'float32')}, constants, opset)


def test_an_unknown_operator_is_told_with_what_to_do(tmp_path):
    assert 'QuantizeLinear' not in OPERATORS
    source = source_of('sim-objects', 'int8')
    message = r'does not know: DequantizeLinear, QuantizeLinear; choose fp16 or fp32 .* tensorrt'
    with pytest.raises(BackendError, match=message):
        on_cpu(source, {})


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda f: one(f, 'Relu', opset=12), 'is of opset 12; export it with 13 or newer'),
        (
            lambda f: one(f, 'MaxPool', kernel_shape=[3, 3], auto_pad='SAME_UPPER'),
            "net: MaxPool 'the one': auto_pad is not known here; export with explicit pads, or run",
        ),
        (
            lambda f: one(f, 'Resize', ['x', '', 's'], {'s': np.ones(4, np.float32)}, mode='cubic'),
            "Resize 'the one': cubic with half_pixel is not known here",
        ),
        (
            lambda f: one(f, 'Slice', ['x', 'a', 'b', 'c', 'd'],
                          {'a': ints(5), 'b': ints(0), 'c': ints(3), 'd': ints(-1)}),
            r'steps \[-1\] backwards are not known here',
        ),
        (
            lambda f: one(f, 'Reshape', ['x', 's'], {'s': ints(7, -1)}),
            "Reshape 'the one' does not run: .*; check the file",
        ),
        (lambda f: one(f, 'Relu', ['z']), "Relu 'the one' reads 'z', which nothing makes"),
        (
            lambda f: replace(one(f, 'Relu'), outputs=(TensorSpec('z', SHAPE, 'float32'),)),
            "output 'z' is missing in the file, the manifest says float32",
        ),
        (
            lambda f: replace(one(f, 'Relu'), inputs=(TensorSpec('x', (1, 4, 6, 9), 'float32'),)),
            r"input 'x' is float32 \[1, 4, 6, 8\] in the file, the manifest says float32 \[1, 4",
        ),
        (
            lambda f: replace(one(f, 'Relu'), outputs=()),
            "the file has one more output, 'y'; export it again",
        ),
        (lambda f: replace(one(f, 'Relu'), file=f / 'no.onnx'), 'no.onnx does not exist; export'),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_when_it_is_loaded(tmp_path, make, message):
    with pytest.raises(BackendError, match=message):
        on_cpu(make(tmp_path), {})


def test_a_shape_that_depends_on_the_picture(tmp_path):
    nodes = [
        helper.make_node('ReduceMax', ['x'], ['most'], keepdims=0),
        helper.make_node('Cast', ['most'], ['number'], to=TensorProto.INT64),
        helper.make_node('Unsqueeze', ['number', 'zero'], ['shape']),
        helper.make_node('Reshape', ['x', 'shape'], ['y'], 'the one'),
    ]
    source = graph(tmp_path, nodes, {'x': SHAPE}, {'y': ((192,), 'float32')}, {'zero': ints(0)})
    with pytest.raises(BackendError, match="Reshape 'the one': input 1 is computed from the pict"):
        on_cpu(source, {})


def test_a_damaged_file(tmp_path):
    source = source_of('sim-gripper', 'fp32')
    damaged = tmp_path / 'net.onnx'
    damaged.write_bytes(source.file.read_bytes()[:5000])
    with pytest.raises(BackendError, match='net.onnx is no ONNX file .*; copy it again'):
        on_cpu(replace(source, file=damaged), {})


def test_on_a_machine_without_gpu():
    from gpu_there import has_gpu

    if has_gpu():
        pytest.skip('there is a GPU here')
    pytest.importorskip('cuda.bindings', reason="pip install '.[tensorrt]'")
    with pytest.raises(BackendError, match='There is no NVIDIA GPU or driver here: choose platf'):
        load_engine('onnx_graph', source_of('sim-gripper', 'fp32'), {})
