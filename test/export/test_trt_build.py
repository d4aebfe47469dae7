"""`vla-trt build` on nano: what is built, kept, rebuilt, refused, and what a failure leaves."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip('onnx', reason="workshop only: pip install '.[trt-build]'")
pytest.importorskip('ml_dtypes', reason="workshop only: pip install '.[tensorrt]'")

import onnx
from float_nano import SHORT, copy_nano

from vla_trt_ros.backends.engine_file import read_record, record_path
from vla_trt_ros.backends.trt_module import TensorRT
from vla_trt_ros.bundle import open_bundle, sha256_of
from vla_trt_ros.config import load_platform
from vla_trt_ros.errors import BackendError, BundleError, ConfigError
from vla_trt_ros.export.trt import bundle_build
from vla_trt_ros.export.trt.builder import BuildFacts
from vla_trt_ros.export.trt.bundle_build import Wanted, plan_jobs, run_jobs
from vla_trt_ros.export.trt.layer_log import LayerLog
from vla_trt_ros.policies.registry import load_policy_from

RTX_MODULE = SimpleNamespace(ComputeCapability=SimpleNamespace(SM86=1, SM89=2, SM120=3))
LOGGER = SimpleNamespace(errors=[], listener=None)
RTX = TensorRT(RTX_MODULE, 'tensorrt_rtx', '1.7', LOGGER)
FULL = TensorRT(SimpleNamespace(), 'tensorrt', '10.13', LOGGER)
FP32 = dict.fromkeys(('vision', 'prefix', 'denoise'), 'fp32')
PREFIX, DENOISE = f'prefix, {SHORT} tokens', f'denoise, {SHORT} tokens, 1 steps'
SMALL = Wanted(prompt_tokens=(SHORT,), num_steps=(1,))


@pytest.fixture
def nano(tmp_path):
    return copy_nano(tmp_path / 'nano')


@pytest.fixture
def built(monkeypatch):
    """A builder that writes a few bytes; what it was asked for. ``fail`` is raised at its turn."""
    asked = SimpleNamespace(names=[], fail={})

    def build(graph, plan, options, trt):
        asked.names.append(options.name)
        plan.write_bytes(b'half')
        if options.name in asked.fail:
            raise asked.fail[options.name]
        plan.write_bytes(f'{graph.name} for {options.target}'.encode())
        log = LayerLog(layers=5, fused_attentions=2, low_precision={}, weights_bytes=3)
        return BuildFacts(1.25, plan.stat().st_size, 4000, log)

    monkeypatch.setattr(bundle_build, 'build_apart', build)
    return asked


def jobs_of(path, wanted=SMALL, precisions=FP32, target='sm_120', trt=RTX):
    return plan_jobs(open_bundle(path), precisions, target, wanted, trt)


def build_all(path, **how):
    jobs, heard = jobs_of(path, **how), []
    run_jobs(
        open_bundle(path), jobs, how.get('trt', RTX), lambda job, record: heard.append(record)
    )
    return jobs, heard


def tensorrt_engines(path):
    return [e for e in open_bundle(path).manifest.engines if e.backend == 'tensorrt']


def files(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob('*') if p.is_file()}


def test_engines_are_built_and_entered(nano, built):
    jobs, heard = build_all(nano)
    assert built.names == [
        'vision',
        PREFIX,
        DENOISE,
    ]
    assert [job.reason for job in jobs] == ['new'] * 3
    assert [record is None for record in heard] == [True, False] * 3
    entries = tensorrt_engines(nano)
    assert [(e.stage, e.precision, e.target) for e in entries] == [
        ('vision', 'fp32', 'sm_120'),
        ('prefix', 'fp32', 'sm_120'),
        ('denoise', 'fp32', 'sm_120'),
    ]
    record = read_record(nano / entries[1].file)
    assert record == heard[3]
    assert (record.layers, record.fused_attentions, record.attentions) == (5, 2, 3)
    assert (record.source, record.builder) == (f'prefix_{SHORT}.onnx', 'TensorRT-RTX 1.7')
    assert entries[1].inputs == jobs[1].source.inputs


def test_what_is_up_to_date_is_kept(nano, built):
    build_all(nano)
    before = files(nano)
    built.names.clear()
    jobs, _ = build_all(nano)
    assert built.names == []
    assert {job.reason for job in jobs} == {''}
    assert files(nano) == before


def test_rebuilt_when_the_graph_changed(nano, built):
    build_all(nano)
    graph = onnx.load(str(nano / f'prefix_{SHORT}.onnx'), load_external_data=False)
    graph.doc_string = 'another'
    (nano / f'prefix_{SHORT}.onnx').write_bytes(graph.SerializeToString())
    with pytest.raises(BundleError, match=rf'prefix_{SHORT}.onnx (was altered|is too long)'):
        jobs_of(nano)  # edited by hand: no longer what the manifest says
    reenter(nano, f'prefix_{SHORT}.onnx')
    reasons = {job.name: job.reason for job in jobs_of(nano)}
    assert reasons == {
        'vision': '',
        PREFIX: 'ONNX changed',
        DENOISE: '',
    }
    old = {e.stage: e.file for e in tensorrt_engines(nano)}
    build_all(nano)
    new = {e.stage: e.file for e in tensorrt_engines(nano)}
    assert new['vision'] == old['vision']
    assert new['prefix'] != old['prefix']
    assert not (nano / old['prefix']).exists()
    assert not record_path(nano / old['prefix']).exists()


def reenter(path, name):
    """What an exporter does: the file's hash in the manifest."""
    manifest = json.loads((path / 'manifest.json').read_text())
    manifest['files'][name] = {
        'sha256': sha256_of(path / name),
        'bytes': (path / name).stat().st_size,
    }
    (path / 'manifest.json').write_text(json.dumps(manifest))


def test_weights_count_too(nano, built):
    build_all(nano)
    weights = nano / 'prefix.weights'
    data = bytearray(weights.read_bytes())
    data[1000] ^= 1
    weights.write_bytes(bytes(data))
    reenter(nano, 'prefix.weights')
    assert [job.reason for job in jobs_of(nano)] == ['', 'ONNX changed', '']


@pytest.mark.parametrize(
    ('how', 'reason'),
    [
        ({'trt': replace(RTX, version='1.8')}, 'builder_version 1.7 -> 1.8'),
        ({'wanted': replace(SMALL, workspace_bytes=9)}, 'workspace_bytes 0 -> 9'),
        ({'target': 'sm_89'}, 'new'),
    ],
)
def test_what_else_makes_an_engine_anew(nano, built, how, reason):
    build_all(nano)
    assert {job.reason for job in jobs_of(nano, **how)} == {reason}


def test_engines_for_two_gpus_live_together(nano, built):
    build_all(nano)
    build_all(nano, target='sm_86')
    assert {e.target for e in tensorrt_engines(nano)} == {'sm_120', 'sm_86'}
    assert {job.reason for job in jobs_of(nano)} == {''}


def test_altered_plan_is_built_again(nano, built):
    build_all(nano)
    vision = tensorrt_engines(nano)[0]
    (nano / vision.file).write_bytes(b'x' * 22)
    with pytest.raises(BundleError, match='altered|truncated|too long'):
        jobs_of(nano)


@pytest.mark.parametrize(
    'error', [BackendError('no'), BundleError('disk'), KeyboardInterrupt()], ids=repr
)
def test_a_failure_leaves_the_bundle_whole(nano, built, error):
    before = files(nano)
    built.fail[DENOISE] = error
    with pytest.raises(type(error)):
        build_all(nano)
    open_bundle(nano)
    assert {k: v for k, v in files(nano).items() if k in before and k != 'manifest.json'} == {
        k: v for k, v in before.items() if k != 'manifest.json'
    }
    assert not list(nano.rglob('*.part'))
    # The two that were finished are not built again.
    built.names.clear()
    built.fail.clear()
    build_all(nano)
    assert built.names == [DENOISE]
    assert len(tensorrt_engines(nano)) == 3


def test_killed_while_writing(nano, built):
    """As after a power cut: a half-written file, no record."""
    folder = nano / 'engines' / 'sm_120'
    folder.mkdir(parents=True)
    name = jobs_of(nano)[0].entry.file
    (nano / name).write_bytes(b'half')
    assert jobs_of(nano)[0].reason == 'new'
    build_all(nano)
    assert (nano / name).read_bytes() == b'vision.onnx for sm_120'


def test_full_disk_is_told_before(nano, built, monkeypatch):
    usage = SimpleNamespace(free=1_000_000)
    monkeypatch.setattr(bundle_build.shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(BundleError, match=r'3 engines take about 0\.\d+ GB, its disk has 0\.00'):
        build_all(nano)
    assert built.names == []


def test_full_disk_while_writing(nano, built):
    built.fail['vision'] = OSError(28, 'No space left on device')
    with pytest.raises(BundleError, match='cannot be written .No space left on device.; free'):
        build_all(nano)
    assert not list(nano.rglob('*.part'))


def test_precision_that_the_gpu_lacks(nano):
    with pytest.raises(ConfigError, match='fp8 does not run on sm_86; choose of fp32, fp16'):
        jobs_of(nano, precisions={'prefix': 'fp8'}, target='sm_86')
    with pytest.raises(ConfigError, match='nvfp4 does not run on sm_89'):
        jobs_of(nano, precisions={'prefix': 'nvfp4'}, target='sm_89')
    with pytest.raises(ConfigError, match='fp8 does not run on sm_87'):
        jobs_of(nano, precisions={'prefix': 'fp8'}, target='sm_87')


def test_precision_that_is_unsafe_or_not_in_the_bundle(nano):
    with pytest.raises(ConfigError, match="prefix: fp16 is refused: Gemma's residual"):
        jobs_of(nano, precisions={'prefix': 'fp16'})
    with pytest.raises(BundleError, match='no nvfp4 ONNX of vision.*--precision fp32,nvfp4'):
        jobs_of(nano, precisions={'vision': 'nvfp4'})


def test_bucket_that_is_not_there(nano):
    with pytest.raises(BundleError, match=r'no graph of prefix for \[47\] prompt tokens'):
        jobs_of(nano, precisions={'prefix': 'fp32'}, wanted=Wanted(prompt_tokens=(47,)))


def test_null_platform_does_not_mind_engines_of_one_stage(nano, built):
    build_all(nano, precisions={'vision': 'fp32'})
    manifest = json.loads((nano / 'manifest.json').read_text())
    (vision,) = (e for e in manifest['engines'] if e['backend'] == 'tensorrt')
    vision['outputs'][0]['dtype'] = 'float16'
    (nano / 'manifest.json').write_text(json.dumps(manifest))
    platform = nano.parent / 'nothing.yaml'
    stages = ''.join(
        f'{stage}: {{backend: null, precision: fp32}}\n'.replace('null', "'null'")
        for stage in ('vision', 'prefix', 'denoise')
    )
    platform.write_text(f'name: nothing\ndescription: x\ntarget: cpu\n{stages}')
    policy = load_policy_from(open_bundle(nano), load_platform(str(platform)))
    policy.close()


def test_run_time_takes_the_engines_of_its_gpu(nano, built):
    from vla_trt_ros.policies.pi05.engines import _for_target

    build_all(nano, target='sm_86')
    build_all(nano)
    bundle = open_bundle(nano)
    entries = bundle.engines('vision', 'tensorrt', 'fp32')
    assert len(entries) == 2
    (found,) = _for_target(bundle, entries, load_platform('rtx'))
    assert found.target == 'sm_120'
    with pytest.raises(BundleError, match='are for sm_120, sm_86, platform thor is sm_110: run'):
        _for_target(bundle, entries, load_platform('thor'))
