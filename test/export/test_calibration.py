"""Ranges of activations, and whole bundles at further precisions."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('ml_dtypes', reason="workshop only: pip install '.[export]'")
onnx = pytest.importorskip('onnx', reason="workshop only: pip install '.[export]'")

from float_nano import LONG, SHORT, copy_nano  # noqa: E402

from vla_trt_ros.bundle import open_bundle  # noqa: E402
from vla_trt_ros.config import PlatformConfig, StageChoice, find_file  # noqa: E402
from vla_trt_ros.errors import BundleError, ConfigError  # noqa: E402
from vla_trt_ros.export.calibration import collect_ranges  # noqa: E402
from vla_trt_ros.export.frames import Frames, synthetic_frames  # noqa: E402
from vla_trt_ros.export.graphs import float_graphs, graphs_of, network_inputs  # noqa: E402
from vla_trt_ros.export.quantize.add import add_precisions  # noqa: E402
from vla_trt_ros.export.quantize.draft import open_draft  # noqa: E402
from vla_trt_ros.export.quantize.gemms import find_gemms, weight_key  # noqa: E402
from vla_trt_ros.policies.pi05.engines import read_config  # noqa: E402
from vla_trt_ros.policies.registry import load_policy_from  # noqa: E402

NANO = find_file('bundles', 'nano', '')
BUNDLE = open_bundle(NANO)
PROMPTS = ('reach the goal', 'open the drawer and put the red block into it')
FRAMES = synthetic_frames(BUNDLE, 16, PROMPTS, size=64)
CPU_INT8 = PlatformConfig('t', '', 'cpu', *[StageChoice('onnxruntime', 'int8')] * 3, threads=1)
CPU_FP32 = replace(
    CPU_INT8, **dict.fromkeys(('vision', 'prefix', 'denoise'), StageChoice('onnxruntime', 'fp32'))
)


@pytest.fixture(scope='module')
def ranges():
    return collect_ranges(BUNDLE, FRAMES.observations[:8])


def test_the_network_is_fed_as_at_run_time():
    policy = load_policy_from(BUNDLE, CPU_FP32)
    seen = FRAMES.observations[1]
    policy.infer(seen, num_steps=1)
    held = policy._engines.vision.inputs['pixels']
    (inputs,) = network_inputs(BUNDLE, [seen])
    np.testing.assert_array_equal(inputs['pixels'], held)
    assert inputs['tokens'].shape in ((1, SHORT), (1, LONG))
    assert inputs['prefix_mask'].dtype == bool
    assert inputs['noise'].shape == (1, 10, 32)
    policy.close()


def test_every_gemm_of_every_graph_has_a_range(ranges):
    config = read_config(BUNDLE)
    assert {stage: len(found) for stage, found in ranges.items()} == {
        'vision': 6 * config.vision.depth + 1,
        'prefix': 7 * (config.depth - 1) + 2,
        'denoise': 7 * config.depth,
    }
    for stage, found in ranges.items():
        for path in float_graphs(BUNDLE, stage).values():
            draft = open_draft(path)
            for gemm in find_gemms(draft, stage):
                if not gemm.kept:
                    assert weight_key(gemm.matrix(draft)) in found


def test_a_range_is_what_the_activation_held(ranges):
    """The first norm's output, computed by hand from the patches' weights."""
    import onnxruntime as ort

    model = onnx.load(NANO / 'vision.onnx')
    first = next(n for n in model.graph.node if n.op_type == 'MatMul')
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(first.input[0], onnx.TensorProto.FLOAT, None)
    )
    session = ort.InferenceSession(model.SerializeToString())
    seen = [
        np.abs(session.run([first.input[0]], {'pixels': i['pixels']})[0])
        for i in network_inputs(BUNDLE, FRAMES.observations[:8])
    ]
    weight = open_draft(NANO / 'vision.onnx').original(first.input[1])
    found = ranges['vision'][weight_key(weight)]
    np.testing.assert_allclose(found.channels, np.max(seen, axis=(0, 1, 2)), rtol=1e-5)
    assert found.amax == pytest.approx(np.max(seen), rel=1e-5)
    mean = np.mean([np.percentile(s, 99.99) for s in seen])
    assert found.percentile == pytest.approx(mean, rel=1e-5)
    assert found.percentile < found.amax


@pytest.mark.parametrize('count', [0, 7])
def test_too_few_frames_to_calibrate_on(count):
    with pytest.raises(ConfigError, match=f'{count} frames are too few to calibrate on; give 8'):
        collect_ranges(BUNDLE, FRAMES.observations[:count])


def copied(tmp_path):
    return copy_nano(tmp_path / 'nano')


def test_a_bundle_with_int8_runs_on_the_cpu(tmp_path):
    path = copied(tmp_path)
    new = add_precisions(path, ['int8', 'bf16'], FRAMES)
    assert {s.boundary for s in new.stages} == {'bfloat16', 'float32'}
    bundle = open_bundle(path)
    assert len(graphs_of(bundle, 'denoise', 'bf16')) == 10
    assert {e.precision for e in bundle.manifest.engines} == {'fp32', 'int8'}
    assert {p.name for p in path.iterdir()} == {
        *bundle.manifest.files,
        'README.md',
        'manifest.json',
    }
    noise = np.random.default_rng(0).standard_normal((10, 32)).astype(np.float32)
    actions = []
    for platform in (CPU_FP32, CPU_INT8):
        policy = load_policy_from(bundle, platform)
        actions.append(policy.infer(FRAMES.observations[0], num_steps=10, noise=noise).actions)
        policy.close()
    exact, rounded = actions
    assert 1e-4 < np.linalg.norm(exact - rounded) / np.linalg.norm(exact) < 0.3
    with pytest.raises(BundleError, match='holds int8 graphs of vision already'):
        add_precisions(path, ['int8'], FRAMES)


def test_what_goes_wrong_leaves_the_bundle_as_it_was(tmp_path, monkeypatch):
    path = copied(tmp_path)
    before = sorted(p.name for p in tmp_path.rglob('*'))
    with pytest.raises(ConfigError, match='fp8, nvfp4 needs frames to calibrate on'):
        add_precisions(path, ['fp8', 'int4', 'nvfp4'], None)
    with pytest.raises(ConfigError, match='15 frames are too few'):
        add_precisions(path, ['fp8'], Frames(FRAMES.observations[:15], 'demo'))
    with pytest.raises(ConfigError, match="precision 'fp12' is none of"):
        add_precisions(path, ['fp12'], FRAMES)

    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('vla_trt_ros.export.quantize.store.WeightStore.save', full)
    with pytest.raises(OSError, match='No space left'):
        add_precisions(path, ['int4'], None)
    assert sorted(p.name for p in tmp_path.rglob('*')) == before
    open_bundle(path)


def test_a_precision_is_left_out_where_it_is_refused(tmp_path):
    path = copied(tmp_path)
    add_precisions(path, ['fp16'], None)
    bundle = open_bundle(path)
    assert {s.stage for s in bundle.manifest.sources if s.precision == 'fp16'} == {
        'vision',
        'denoise',
    }


def test_a_bundle_of_bfloat16_alone_calibrates_alike(tmp_path, ranges):
    path = copied(tmp_path)
    add_precisions(path, ['bf16'], None)
    bundle = open_bundle(path)
    half = replace(
        bundle,
        manifest=replace(
            bundle.manifest,
            engines=(),
            sources=tuple(s for s in bundle.manifest.sources if s.precision == 'bf16'),
        ),
    )
    found = collect_ranges(half, FRAMES.observations[:8])
    for stage in ranges:
        assert set(found[stage]) == set(ranges[stage])
        for key, exact in ranges[stage].items():
            assert found[stage][key].amax == pytest.approx(exact.amax, rel=0.15)


def test_a_network_that_gives_nan_is_named(tmp_path):
    path = copied(tmp_path)
    weights = path / 'prefix.weights'
    data = np.fromfile(weights, np.float32)
    data[:2000] = np.nan
    data.tofile(weights)
    damaged = replace(BUNDLE, path=path)
    with pytest.raises((ConfigError, BundleError), match='NaN or Inf'):
        collect_ranges(damaged, FRAMES.observations)
