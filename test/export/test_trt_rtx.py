"""With TensorRT-RTX itself: it compiles ahead of time, and needs no GPU for that. Nothing runs."""

import json
import re
import shutil

import pytest

pytest.importorskip('onnx', reason="workshop only: pip install '.[trt-build]'")
pytest.importorskip('ml_dtypes', reason="workshop only: pip install '.[tensorrt]'")
pytest.importorskip('tensorrt_rtx_bindings', reason="workshop only: pip install '.[trt-build]'")

from float_nano import SHORT, copy_nano
from onnx import TensorProto, helper

from vla_trt_ros.backends.engine_file import read_record
from vla_trt_ros.backends.trt_module import find_tensorrt
from vla_trt_ros.bundle import open_bundle, sha256_of
from vla_trt_ros.cli.main import main
from vla_trt_ros.config import share_dir
from vla_trt_ros.errors import BackendError
from vla_trt_ros.export.trt.builder import BuildOptions, build_plan
from vla_trt_ros.export.trt.matrix import (
    PRECISIONS,
    TARGETS,
    compile_matrix,
    make_sources,
    table,
)
from vla_trt_ros.export.trt.worker import build_apart
from vla_trt_ros.planning.work import vision_work
from vla_trt_ros.policies.pi05.spec import NANO as SIZES

NANO = share_dir() / 'bundles' / 'nano'


@pytest.fixture(scope='module')
def rtx():
    return find_tensorrt('tensorrt_rtx')


@pytest.fixture
def nano(tmp_path):
    return copy_nano(tmp_path / 'nano')


def save(path, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, 'g', inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def half(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape)


def test_build_in_a_process_of_its_own(rtx, tmp_path):
    cache = tmp_path / 'timing.cache'
    options = BuildOptions('vision', 'fp32', 'sm_120', 1 << 30, cache)
    facts = build_apart(NANO / 'vision.onnx', tmp_path / 'v.plan', options, rtx)
    work = vision_work(SIZES)
    weights = 4 * (work.weights + work.half_weights)
    assert facts.plan_bytes == (tmp_path / 'v.plan').stat().st_size > 0.95 * weights
    assert facts.log.weights_bytes == pytest.approx(weights, rel=0.01)
    assert facts.log.layers > 10
    assert facts.log.fused_attentions == 0  # float32 has no fused kernel
    assert 1e8 < facts.peak_memory_bytes < 2e9
    assert cache.stat().st_size > 0


def test_the_same_graph_gives_the_same_plan(rtx, tmp_path):
    options = BuildOptions('vision', 'fp32', 'sm_89')
    digests = set()
    for name in ('a', 'b'):
        build_plan(NANO / 'vision.onnx', tmp_path / name, options, rtx)
        digests.add(sha256_of(tmp_path / name))
    assert len(digests) == 1


def test_heads_come_back_before_a_half_graph_is_built(rtx, tmp_path):
    """Four query heads folded into rows of one: as it stands TensorRT fuses nothing."""
    constants = [
        helper.make_tensor('fold', TensorProto.INT64, [4], [1, 1, -1, 64]),
        helper.make_tensor('unfold', TensorProto.INT64, [4], [1, 4, 32, 64]),
        helper.make_tensor('scale', TensorProto.FLOAT16, [1], [64**-0.25]),
    ]
    nodes = [
        helper.make_node('Reshape', ['q', 'fold'], ['rows']),
        helper.make_node('Transpose', ['k'], ['kt'], perm=[0, 1, 3, 2]),
        helper.make_node('Mul', ['rows', 'scale'], ['qs']),
        helper.make_node('Mul', ['kt', 'scale'], ['ks']),
        helper.make_node('MatMul', ['qs', 'ks'], ['logits']),
        helper.make_node('Softmax', ['logits'], ['p'], axis=-1),
        helper.make_node('MatMul', ['p', 'v'], ['o']),
        helper.make_node('Reshape', ['o', 'unfold'], ['out']),
    ]
    inputs = [half('q', 1, 4, 32, 64), half('k', 1, 1, 96, 64), half('v', 1, 1, 96, 64)]
    graph = save(tmp_path / 'a.onnx', nodes, inputs, [half('out', 1, 4, 32, 64)], constants)
    facts = build_plan(graph, tmp_path / 'a', BuildOptions('a', 'fp16', 'sm_120'), rtx)
    assert facts.log.fused_attentions == 1
    # One output more reads the inside, so the heads stay folded.
    inside = helper.make_node('Identity', ['o'], ['spied'])
    outputs = [half('out', 1, 4, 32, 64), half('spied', 1, 1, 128, 64)]
    graph = save(tmp_path / 'b.onnx', [*nodes, inside], inputs, outputs, constants)
    facts = build_plan(graph, tmp_path / 'b', BuildOptions('b', 'fp16', 'sm_120'), rtx)
    assert facts.log.fused_attentions == 0


def test_the_library_refuses_in_its_own_words(rtx, tmp_path):
    graph = save(
        tmp_path / 'nonzero.onnx',
        [helper.make_node('NonZero', ['x'], ['y'])],
        [half('x', 4)],
        [helper.make_tensor_value_info('y', TensorProto.INT64, [1, None])],
    )
    with pytest.raises(BackendError, match='nonzero: TensorRT-RTX .* refuses fp16.*NonZero'):
        build_plan(graph, tmp_path / 'p', BuildOptions('nonzero', 'fp16', 'sm_120'), rtx)
    assert not (tmp_path / 'p').exists()


def test_what_is_no_onnx(rtx, tmp_path):
    (tmp_path / 'x.onnx').write_bytes(b'\x00garbage')
    with pytest.raises(BackendError, match='x.onnx is no ONNX file'):
        build_plan(tmp_path / 'x.onnx', tmp_path / 'p', BuildOptions('x', 'fp16', 'sm_86'), rtx)


def test_weights_are_missing(rtx, tmp_path):
    shutil.copy(NANO / 'vision.onnx', tmp_path)
    with pytest.raises(BackendError, match='vision: TensorRT-RTX .* refuses'):
        build_plan(
            tmp_path / 'vision.onnx', tmp_path / 'p', BuildOptions('vision', 'fp32', 'sm_86'), rtx
        )


BUILD = ['--platform', 'rtx', '--precision', 'fp32', '--stage', 'vision']


def test_command_builds_once(nano, capsys):
    words = ['build', '--bundle', str(nano), *BUILD]
    assert main([*words, '--dry-run']) == 0
    assert 'build (new)' in capsys.readouterr().out
    assert main([*words, '--json', '-']) == 0
    said = capsys.readouterr()
    (row,) = json.loads(said.out)
    assert row['built'] is True
    assert '[ 1/1] vision fp32 (new) ...' in said.err
    assert f'0 of {SIZES.vision.depth} attentions fused' in said.err
    record = read_record(nano / row['file'])
    assert record.plan_bytes == row['plan_bytes']
    assert main([*words, '--json', str(nano.parent / 'rows.json')]) == 0
    assert '0 built, 1 up to date' in capsys.readouterr().out
    assert json.loads((nano.parent / 'rows.json').read_text())[0]['built'] is False
    assert main([*words, '--dry-run']) == 0
    assert 'up to date' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--platform', 'thor'], 'sm_110 cannot be targeted from this machine'),
        (['--platform', 'cpu'], 'there is nothing to build'),
        (['--platform', 'toaster'], 'toaster.yaml does not exist; known: cpu'),
        (['--platform', 'rtx', '--target', 'sm_99'], "--target 'sm_99' is none of"),
        (['--platform', 'rtx', '--target', 'sm_86'], 'fp8 does not run on sm_86'),
        (['--platform', 'rtx', '--precision', 'fp7'], "precision 'fp7' is none of fp32"),
        (['--platform', 'rtx', '--workspace', '-1'], 'workspace -1.0 GiB is negative'),
        (['--platform', 'rtx', '--builder', 'tensorrt'], 'JetPack has it'),
        (['--platform', 'rtx', '--precision', 'bf16'], 'no bf16 ONNX of vision'),
    ],
)
def test_command_refuses(nano, capsys, words, message):
    assert main(['build', '--bundle', str(nano), *words]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_plan_is_refused_where_there_is_no_gpu(nano):
    from vla_trt_ros.gpu.cuda import device_target
    from vla_trt_ros.loading import load_pipeline

    try:
        device_target()
    except BackendError:
        pass
    else:
        pytest.skip('there is a GPU here')
    main(['build', '--bundle', str(nano), *BUILD])
    platform = nano.parent / 'mine.yaml'
    platform.write_text(
        'name: mine\ndescription: x\ntarget: sm_120\n'
        + ''.join(
            f'{stage}: {{backend: {backend}, precision: fp32}}\n'
            for stage, backend in (
                ('vision', 'tensorrt'),
                ('prefix', 'onnxruntime'),
                ('denoise', 'onnxruntime'),
            )
        )
    )
    with pytest.raises(BackendError, match='cuda-python|There is no NVIDIA GPU or driver'):
        load_pipeline(robot='metaworld', platform=str(platform), bundle=f'{nano}/')


@pytest.mark.slow
@pytest.mark.timeout(400)  # 40 s on idle cores, 100 s on busy ones
def test_compile_matrix(rtx, tmp_path):
    """Every precision for every GPU, as config.py says; every attention in one kernel."""
    sources = make_sources(open_bundle(NANO), PRECISIONS, SHORT, 1, tmp_path)
    cells = list(compile_matrix(sources, TARGETS, tmp_path, rtx))
    assert not [c for c in cells if not c.good], table(cells)
    # fp16 is refused on the prefix; the rest is there.
    assert len(cells) == (3 * len(PRECISIONS) - 1) * len(TARGETS)
    refused = {(c.precision, c.target) for c in cells if not c.built}
    assert refused == {('fp8', 'sm_86'), ('nvfp4', 'sm_86'), ('nvfp4', 'sm_89')}
    assert all('HW-specific datatypes' in c.refusal for c in cells if not c.built)
    fused = {(c.stage, c.fused_attentions) for c in cells if c.built}
    depth = SIZES.depth
    vision = ('vision', SIZES.vision.depth)
    assert fused == {vision, ('prefix', depth - 1), ('denoise', depth)}


def test_committed_matrix_is_as_expected():
    """The figures in benchmarks/ are of this builder, and good."""
    file = share_dir() / 'benchmarks' / 'compile-matrix.json'
    if not file.is_file():
        pytest.skip('benchmarks/ is not installed')
    record = json.loads(file.read_text())
    assert len(record['cells']) == 51
    assert all(cell['as_expected'] for cell in record['cells'])
    assert record['seconds_total'] < 180
