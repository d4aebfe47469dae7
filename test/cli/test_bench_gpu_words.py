"""What a benchmark says of a GPU, without one: clocks, floors, names, a blind baseline."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from bench_records import RECORD
from fakes import FakePolicy

from vla_trt_ros.cli import bench, bench_baseline, bench_measure
from vla_trt_ros.cli.bench_measure import Setting, measure, with_floor
from vla_trt_ros.config import StageChoice, load_platform
from vla_trt_ros.datatypes import Observation
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.planning.devices import find_device
from vla_trt_ros.planning.roofline import make_plan
from vla_trt_ros.policies.pi05.spec import PI05

H200 = load_platform('h200')


def plan(views, prompt_tokens, steps):
    config = replace(PI05, views=PI05.views[:views])
    device = find_device('', H200.target)
    return make_plan(
        config, H200, device, network='pi05', prompt_tokens=prompt_tokens, steps=steps
    )


@pytest.fixture
def policy(monkeypatch):
    monkeypatch.setattr(bench_measure, 'device_name', lambda: 'a GPU')
    made = FakePolicy()
    made.prompt_buckets = (16, 48)
    made.runtimes = {'vision': 'tensorrt fp16', 'prefix': 'tensorrt fp8', 'denoise': 'null bf16'}
    return made


def test_a_record_of_a_gpu_names_it_and_its_floor(policy):
    setting = Setting(3, 1, '64x48', H200, plan)
    observation = Observation(dict.fromkeys(('base', 'wrist')), None, 'go')
    record = measure(policy, observation, 10, setting)
    assert (record.hardware, record.precision) == ('a GPU', 'fp16 + fp8 + bf16')
    assert record.clock.startswith('frames uploaded, infer(), actions back')
    assert record.stage_clock == 'CUDA events between stages'
    assert (record.prompt_tokens, record.prompt_bucket) == (9, 16)
    assert (record.engines_ms, record.per_step_ms) == (6.0, 0.3)
    floors = plan(2, 9, 10)
    assert record.floor_ms == pytest.approx(floors.floor_ms, abs=1e-4)
    assert record.over_floor('prefix') == pytest.approx(2.0 / floors.stages[1].floor_ms, rel=1e-3)
    assert len(policy.asked) == 4


def test_every_run_brings_its_frames_to_the_gpu(policy, monkeypatch):
    moved = []
    monkeypatch.setattr(
        policy, 'prepare_frame', lambda view, f: moved.append(view) or f'{f}, moved'
    )
    observation = Observation({'base': 'a frame', 'wrist': 'another'}, None, 'go')
    measure(policy, observation, 3, Setting(2, 1, '64x48', H200, plan))
    assert moved == ['base', 'wrist'] * 3
    assert policy.asked[-1][0].frames['wrist'] == 'another, moved'


@pytest.mark.alone
def test_frames_that_are_uploaded_before_are_waited_for_and_not_clocked(policy, monkeypatch):
    done = []
    infer = policy.infer

    def upload(view, frame):
        time.sleep(0.02)
        done.append('upload')
        return f'{frame}, moved'

    def ran(observation, **how):
        done.append('infer')
        return infer(observation, **how)

    monkeypatch.setattr(policy, 'prepare_frame', upload)
    monkeypatch.setattr(policy, 'infer', ran)
    monkeypatch.setattr(bench_measure, 'synchronize', lambda doing: done.append('wait'))
    policy.transport = 'pinned'
    observation = Observation({'base': 'a frame', 'wrist': 'another'}, None, 'go')
    record = measure(policy, observation, 3, Setting(2, 1, '64x48', H200, plan))
    assert done == 3 * ['upload', 'upload', 'infer', 'upload', 'upload', 'wait', 'infer']
    assert policy.asked[-1][0].frames['wrist'] == 'another, moved'  # anew from the host, each time
    assert record.e2e_total_ms > 40 > 20 > record.uploaded_p99_ms >= record.uploaded_total_ms > 0
    assert record.uploaded_clock.startswith('infer(): camera frames on the GPU in')
    assert record.n == 2


def test_a_stage_on_the_host_is_clocked_by_it(policy):
    mixed = replace(H200, denoise=StageChoice('onnxruntime', 'bf16'))
    setting = Setting(1, 0, '64x48', mixed, lambda *shape: None)
    assert (setting.platform.on_gpu, setting.platform.all_on_gpu) == (True, False)
    record = measure(policy, Observation({'base': None}, None, 'go'), 3, setting)
    assert record.stage_clock == 'perf_counter around each stage'
    assert record.floor_ms is None
    assert record.over_floor() is None
    assert record.uploaded_total_ms is record.uploaded_p99_ms is None
    assert record.uploaded_clock == ''


def test_floors_of_a_plan_are_those_of_its_stages():
    record = with_floor(RECORD, plan(3, 200, 10))
    assert record.floor_device == 'H200 SXM'
    # docs/plan.md: h200, the platform file's precisions, 3 views, 200 tokens, 10 steps
    assert 3.0 < record.floor_ms < 7.2
    stages = (record.vision_floor_ms, record.prefix_floor_ms, record.denoise_floor_ms)
    assert sum(stages) == pytest.approx(record.floor_ms, abs=1e-3)


def test_a_device_without_known_peaks_has_no_floor_unless_it_was_named(nano_bundle):
    int8 = replace(H200, prefix=StageChoice('null', 'int8'))
    assert bench._floors(nano_bundle, int8, '')(2, 9, 1) is None
    with pytest.raises(ConfigError, match='its int8 peak is not known'):
        bench._floors(nano_bundle, int8, 'h200')


@pytest.fixture
def nano_bundle():
    from vla_trt_ros.bundle import open_bundle
    from vla_trt_ros.config import find_file

    return open_bundle(find_file('bundles', 'nano', ''))


def test_a_baseline_on_a_gpu_that_torch_does_not_see(monkeypatch):
    baseline = pytest.importorskip('vla_trt_ros.export.pi05.baseline', reason='needs torch')
    monkeypatch.setattr(baseline, 'gpu_is_there', lambda: False)
    with pytest.raises(ConfigError, match='--baseline compile: torch sees no GPU here'):
        bench_baseline.check_baseline('compile', gpu=True)


def test_device_name_is_what_the_driver_says(monkeypatch):
    from vla_trt_ros.gpu import device

    properties = SimpleNamespace(name=b'NVIDIA H200\0\0\0')
    runtime = SimpleNamespace(cudaGetDeviceProperties=lambda index: (0, properties))
    monkeypatch.setattr(device, 'runtime', lambda: runtime)
    assert device.device_name() == 'NVIDIA H200'
