"""Who builds for what, what a refusal says, and how a build in its own process can end."""

import json
import os
import signal
from types import SimpleNamespace

import pytest

pytest.importorskip('onnx', reason="workshop only: pip install '.[trt-build]'")
pytest.importorskip('ml_dtypes', reason="workshop only: pip install '.[tensorrt]'")

from vla_trt_ros.backends.trt_module import TensorRT
from vla_trt_ros.config import PlatformConfig, StageChoice, load_platform
from vla_trt_ros.errors import BackendError, BundleError, ConfigError
from vla_trt_ros.export.trt import targets, worker
from vla_trt_ros.export.trt.builder import BuildOptions, refusal
from vla_trt_ros.export.trt.bundle_build import Wanted, choices
from vla_trt_ros.export.trt.targets import buildable, choose_builder

RTX_MODULE = SimpleNamespace(ComputeCapability=SimpleNamespace(SM86=1, SM89=2, SM120=3))
LOGGER = SimpleNamespace(errors=[], listener=None)
RTX = TensorRT(RTX_MODULE, 'tensorrt_rtx', '1.7', LOGGER)
FULL = TensorRT(SimpleNamespace(), 'tensorrt', '10.13', LOGGER)


def test_choices_of_a_platform():
    rtx = load_platform('rtx')
    assert choices(rtx, Wanted()) == {'vision': 'fp16', 'prefix': 'fp8', 'denoise': 'bf16'}
    assert choices(rtx, Wanted(stages=('prefix',), precision='int8')) == {'prefix': 'int8'}
    with pytest.raises(ConfigError, match="stage 'wheels' is none of vision"):
        choices(rtx, Wanted(stages=('wheels',)))
    onnxruntime = StageChoice('onnxruntime', 'fp32')
    mixed = PlatformConfig('m', '', 'sm_120', onnxruntime, onnxruntime, onnxruntime)
    with pytest.raises(ConfigError, match='platform m runs none of vision, prefix, denoise on'):
        choices(mixed, Wanted())
    with pytest.raises(ConfigError, match='nothing to build .*--backend cuda_graph'):
        choices(load_platform('h200'), Wanted())
    assert choices(load_platform('h200-hybrid'), Wanted()) == {'vision': 'fp16', 'prefix': 'fp8'}


def test_who_builds_for_what():
    assert buildable(RTX, None) == ('sm_86', 'sm_89', 'sm_120')
    assert buildable(FULL, None) == ()
    assert buildable(FULL, 'sm_110') == ('sm_110',)


def test_builder_is_the_first_that_has_the_target(monkeypatch, tmp_path):
    monkeypatch.setattr(targets, 'installed', lambda: (FULL, RTX))
    assert choose_builder('sm_110', tmp_path, None, 'sm_110') is FULL
    assert choose_builder('sm_120', tmp_path, None, 'sm_110') is RTX
    assert choose_builder('sm_120', tmp_path, None, 'sm_120') is FULL
    with pytest.raises(ConfigError, match='platform cpu runs ONNX files as they are'):
        choose_builder('cpu', tmp_path, None, None)
    monkeypatch.setattr(targets, 'find_tensorrt', lambda *flavours: RTX)
    assert choose_builder('sm_120', tmp_path, 'tensorrt_rtx', 'sm_120') is RTX


@pytest.mark.parametrize(
    ('target', 'platform'), [('sm_110', 'thor'), ('sm_87', 'orin'), ('sm_90', 'h200')]
)
def test_target_that_needs_the_device_itself(monkeypatch, tmp_path, target, platform):
    monkeypatch.setattr(targets, 'installed', lambda: (RTX,))
    message = f'{target} cannot be targeted from this machine .there is no.*--platform {platform}'
    with pytest.raises(BackendError, match=message):
        choose_builder(target, tmp_path, None, None)


@pytest.mark.parametrize(
    ('said', 'remedy'),
    [
        ('Cannot compile for sm86, HW-specific datatypes: fp8', 'sm_86 does not compute fp8'),
        ('std::bad_alloc', 'Memory ran out'),
        ('the system killed it: out of memory', 'Memory ran out'),
        ('insufficient workspace', 'larger limit'),
        ('', 'no reason given. Export the bundle again'),
    ],
)
def test_refusals_have_their_remedy(said, remedy):
    text = refusal(BuildOptions('vision', 'fp8', 'sm_86'), RTX, said)
    assert text.startswith('vision: TensorRT-RTX 1.7 refuses fp8 for sm_86: ')
    assert remedy in text


class Child:
    """A worker that ended as told."""

    def __init__(self, code, out='', error=''):
        self.returncode, self._said = code, (out, error)
        self.killed = False

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return None

    def communicate(self):
        if self.returncode is None:
            raise KeyboardInterrupt
        return self._said

    def kill(self):
        self.killed = True


@pytest.mark.parametrize(
    ('child', 'error', 'message'),
    [
        (Child(-signal.SIGKILL), BackendError, 'killed it: out of memory. Memory ran out'),
        (Child(-signal.SIGSEGV, '', 'boom'), BackendError, 'ended with status -11: boom'),
        (
            Child(0, 'chatter\nvla-trt-build-answer {"backend_error": "not so"}\n'),
            BackendError,
            'not so',
        ),
        (Child(0, 'vla-trt-build-answer {"bundle_error": "full"}'), BundleError, 'full'),
    ],
)
def test_how_a_worker_can_end(monkeypatch, tmp_path, child, error, message):
    monkeypatch.setattr(worker.subprocess, 'Popen', lambda *args, **kwargs: child)
    options = BuildOptions('vision', 'fp32', 'sm_120')
    with pytest.raises(error, match=message):
        worker.build_apart(tmp_path / 'x.onnx', tmp_path / 'x.plan', options, RTX)


def test_worker_is_killed_when_the_command_is_interrupted(monkeypatch, tmp_path):
    child = Child(None)
    monkeypatch.setattr(worker.subprocess, 'Popen', lambda *args, **kwargs: child)
    with pytest.raises(KeyboardInterrupt):
        worker.build_apart(
            tmp_path / 'x', tmp_path / 'y', BuildOptions('v', 'fp32', 'sm_120'), RTX
        )
    assert child.killed


def test_worker_whose_disk_is_full(monkeypatch, tmp_path, capsys):
    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(worker, 'build_plan', full)
    monkeypatch.setattr(worker, 'find_tensorrt', lambda flavour: RTX)
    monkeypatch.setattr(worker, '_first_to_be_killed', lambda: None)
    job = {
        'onnx': 'a.onnx',
        'plan': str(tmp_path / 'a.plan'),
        'flavour': 'tensorrt_rtx',
        'options': {'name': 'v', 'precision': 'fp32', 'target': 'sm_120', 'timing_cache': None},
    }
    assert worker.main([json.dumps(job)]) == 0
    answer = json.loads(capsys.readouterr().out.removeprefix('vla-trt-build-answer '))
    assert (
        'a.plan cannot be written (No space left on device); free space' in answer['bundle_error']
    )


def test_oom_score_can_be_raised():
    """The line that keeps the rest of the machine alive when memory runs out, in a child."""
    pid = os.fork()
    if pid == 0:
        worker._first_to_be_killed()
        score = open(f'/proc/{os.getpid()}/oom_score_adj').read().strip()  # noqa: SIM115
        os._exit(0 if score == '1000' else 1)
    assert os.waitpid(pid, 0)[1] == 0
