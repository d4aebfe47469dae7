"""Exported engines against the PyTorch model, through a whole small bundle."""

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='workshop only: pip install .[export]')
onnx = pytest.importorskip('onnx', reason='workshop only: pip install .[export]')

from test_pi05_model import SMALL, TOKENS, inputs  # noqa: E402

from vla_trt_ros.backends.base import EngineSource  # noqa: E402
from vla_trt_ros.backends.registry import load_engine  # noqa: E402
from vla_trt_ros.bundle import ActionColumn, Layout, open_bundle  # noqa: E402
from vla_trt_ros.errors import BundleError  # noqa: E402
from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.export.pi05.stages import DenoiseStepStage, VisionStage  # noqa: E402
from vla_trt_ros.export.pi05.to_bundle import (  # noqa: E402
    BundleContents,
    engine_count,
    write_bundle,
)
from vla_trt_ros.export.pi05.trace import time_rows  # noqa: E402
from vla_trt_ros.export.to_onnx import OPSET, export_stage  # noqa: E402
from vla_trt_ros.export.unroll import unroll  # noqa: E402
from vla_trt_ros.export.weights import WeightFile  # noqa: E402
from vla_trt_ros.policies.pi05.spec import (  # noqa: E402
    denoise_spec,
    denoise_step_spec,
    prefix_spec,
    vision_spec,
)
from vla_trt_ros.preprocess.normalize import NormStats  # noqa: E402

LAYOUT = Layout('metaworld', 0.05, ('hand_x',), (ActionColumn('hand_x', 'delta'),))
STATS = NormStats(*(np.array([v]) for v in (0.0, 0.1, -0.3, 0.3)))


@pytest.fixture(scope='module')
def model():
    torch.set_num_threads(1)
    return random_model(SMALL, seed=1)


@pytest.fixture(scope='module')
def bundle(model, tmp_path_factory):
    out = tmp_path_factory.mktemp('bundles') / 'small'
    told = []
    contents = BundleContents(
        'small', LAYOUT, {'state': STATS, 'actions': STATS}, b'vocabulary', '# small', 'a test'
    )
    write_bundle(model, contents, out, told.append)
    assert len(told) == engine_count(SMALL) == 13
    return open_bundle(out)


def source(bundle, stage, bucket=None, num_steps=None):
    for e in bundle.manifest.engines:
        if (e.stage, e.prompt_bucket, e.num_steps) == (stage, bucket, num_steps):
            return EngineSource(stage, bundle.file(e.file), e.inputs, e.outputs)
    raise AssertionError(f'{stage} {bucket} {num_steps} is not in the bundle')


@pytest.mark.parametrize('bucket', SMALL.prompt_buckets)
@pytest.mark.parametrize('num_steps', SMALL.num_steps)
def test_whole_policy_equals_torch(model, bundle, bucket, num_steps):
    pixels, tokens, mask, noise = inputs((True, False), bucket)
    buffers = {}
    engines = [
        load_engine('onnxruntime', source(bundle, *key), buffers)
        for key in (('vision',), ('prefix', bucket), ('denoise', bucket, num_steps))
    ]
    given = {'pixels': pixels, 'tokens': tokens, 'prefix_mask': mask, 'noise': noise}
    for name, value in given.items():
        buffers[name][...] = value.numpy()
    for engine in engines:
        engine.enqueue()
    with torch.no_grad():
        expected = model.sample_actions(pixels, tokens, mask, noise, num_steps).numpy()
    np.testing.assert_allclose(buffers['actions'], expected, atol=1e-5)


def test_unrolled_loop_equals_a_loop_on_the_host(model, bundle, tmp_path):
    spec = denoise_step_spec(SMALL, 6)
    with WeightFile(tmp_path / 'step.weights') as weights:
        weights.save(export_stage(DenoiseStepStage(model), spec), tmp_path / 'step.onnx')
    buffers = {}
    step = load_engine(
        'onnxruntime',
        EngineSource('step', tmp_path / 'step.onnx', spec.inputs, spec.outputs),
        buffers,
    )
    whole = load_engine('onnxruntime', source(bundle, 'denoise', 6, 5), buffers)
    pixels, tokens, mask, noise = inputs()
    with torch.no_grad():
        keys, values = model.fill_kv_cache(model.embed_images(pixels), tokens, mask)
        times = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2], dtype=torch.float64)
        table = model.modulation(times).numpy()
    for name, value in {
        'keys': keys,
        'values': values,
        'prefix_mask': mask,
        'noise': noise,
    }.items():
        buffers[name][...] = value.numpy()
    x = noise.numpy().copy()
    for row in table:
        buffers['x'][...], buffers['modulation'][...] = x, row
        step.enqueue()
        x = x - np.float32(0.2) * buffers['velocity']
    whole.enqueue()
    np.testing.assert_allclose(buffers['actions'], x, atol=2e-6)


def test_step_counts_share_one_set_of_weights(bundle):
    seen = {}
    for num_steps in SMALL.num_steps:
        for bucket in SMALL.prompt_buckets:
            path = bundle.file(f'denoise_{bucket}_{num_steps}.onnx')
            for tensor in onnx.load(path, load_external_data=False).graph.initializer:
                where = {entry.key: entry.value for entry in tensor.external_data}
                if where:
                    assert where['location'] == 'denoise.weights'
                    shape = tuple(tensor.dims)
                    assert seen.setdefault((tensor.name, shape), where) == where, tensor.name
    stored = sum(int(w['length']) for w in {w['offset']: w for w in seen.values()}.values())
    size = bundle.file('denoise.weights').stat().st_size
    assert stored <= size < stored + 64 * len(seen)


def test_modulation_is_tabulated_for_every_time_once(bundle):
    times, rows = time_rows(SMALL)
    assert len(times) == len(set(times)) == 12
    assert times[0] == 1.0
    assert [times[i] for i in rows[2]] == [1.0, 0.5]
    assert rows[10][::2] == rows[5]
    graph = onnx.load(bundle.file('denoise_6_3.onnx')).graph
    table = next(t for t in graph.initializer if t.name == 'modulation_table')
    assert list(table.dims) == [12, 7, 60]
    assert not any('time_mlp' in t.name or 'dense' in t.name for t in graph.initializer)


def test_what_does_not_change_is_computed_once(bundle):
    counts = {
        n: [node.op_type for node in onnx.load(bundle.file(f'denoise_6_{n}.onnx')).graph.node]
        for n in (1, 10)
    }
    assert counts[1].count('Cos') == counts[10].count('Cos') == 1
    assert counts[10].count('Softmax') == 10 * SMALL.depth
    assert len(counts[10]) < 10 * len(counts[1])


def test_last_prefix_layer_makes_keys_and_values_only(bundle):
    nodes = onnx.load(bundle.file('prefix_6.onnx')).graph.node
    assert [n.op_type for n in nodes].count('Softmax') == SMALL.depth - 1


def test_graphs_are_valid_and_plain(bundle):
    for entry in bundle.manifest.engines:
        path = bundle.file(entry.file)
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
        assert [(o.domain, o.version) for o in model.opset_import if not o.domain] == [('', OPSET)]
        assert not any(n.domain for n in model.graph.node)
        types = {t.data_type for t in model.graph.initializer}
        assert onnx.TensorProto.DOUBLE not in types
        assert not any(p.metadata_props or p.doc_string for p in model.graph.node)


def test_wrong_boundary_is_refused(model):
    with pytest.raises(BundleError, match='the exported graph has'):
        export_stage(VisionStage(model), vision_with_wrong_output())


def vision_with_wrong_output():
    return type(vision_spec(SMALL))(vision_spec(SMALL).inputs, prefix_spec(SMALL, 6).outputs[:1])


def test_unroll_checks_its_boundary(model):
    step = export_stage(DenoiseStepStage(model), denoise_step_spec(SMALL, 6))
    with torch.no_grad():
        table = model.modulation(torch.tensor([1.0])).numpy()
    whole = unroll(step, denoise_spec(SMALL, 6), table, (0,))
    assert [v.name for v in whole.graph.input] == ['noise', 'keys', 'values', 'prefix_mask']
    assert [v.name for v in whole.graph.output] == ['actions']
    assert len(TOKENS) < 6
