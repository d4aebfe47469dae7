"""The logic of the TensorRT backend over stand-ins: binding, copies, capture, refusals.

What it does not show: that a real engine loads, runs or is right. There was no GPU to try that.
"""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('ml_dtypes', reason="the robot's GPU extra: pip install '.[tensorrt]'")

import stand_ins
from gpu_stand_in import Cuda

from vla_trt_ros.backends import trt_module
from vla_trt_ros.backends.base import EngineSource
from vla_trt_ros.backends.captured_chain import CapturedChain, host_copies
from vla_trt_ros.backends.engine_file import (
    EngineKey,
    EngineRecord,
    read_record,
    record_path,
    write_record,
)
from vla_trt_ros.backends.registry import load_engine
from vla_trt_ros.backends.tensorrt import platform_of
from vla_trt_ros.backends.trt_module import TensorRT, find_tensorrt
from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import cuda as gpu

NAMES = {'float32': 'FLOAT', 'int64': 'INT64', 'bool': 'BOOL', 'bfloat16': 'BF16'}
KEY = EngineKey('0' * 64, 'bf16', 'tensorrt', '10.13.3.9', 'sm_120', 1)
PIXELS = TensorSpec('pixels', (2, 3), 'float32')
MASK = TensorSpec('prefix_mask', (1, 4), 'bool')
KEYS = TensorSpec('keys', (1, 4), 'bfloat16')
ACTIONS = TensorSpec('actions', (1, 2), 'float32')


@pytest.fixture
def cuda(monkeypatch, tmp_path):
    device = Cuda()
    monkeypatch.setattr(gpu, 'runtime', lambda: device)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    use(monkeypatch, stand_ins.module(device))
    return device


def use(monkeypatch, module, flavour='tensorrt'):
    found = TensorRT(module, flavour, module.__version__, trt_module._logger(module))
    monkeypatch.setattr(trt_module, '_load', lambda wanted: found)


def plan(folder, name, inputs, outputs, key=KEY, **more):
    """A stand-in plan with its record; what a backend needs to load it."""
    file = folder / f'{name}.plan'
    content = {
        'inputs': {s.name: [s.shape, NAMES[s.dtype]] for s in inputs},
        'outputs': {s.name: [s.shape, NAMES[s.dtype]] for s in outputs},
        **more,
    }
    file.write_text(json.dumps(content))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    write_record(file, EngineRecord(name, f'{name}.onnx', key, digest, 1, 1.0, 1))
    return EngineSource(name, file, tuple(inputs), tuple(outputs), 'bf16')


@pytest.fixture
def chain(tmp_path, cuda):
    """prefix: pixels, prefix_mask -> keys; denoise: keys, prefix_mask -> actions."""
    buffers = {}
    prefix = load_engine('tensorrt', plan(tmp_path, 'prefix', (PIXELS, MASK), (KEYS,)), buffers)
    denoise = load_engine('tensorrt', plan(tmp_path, 'denoise', (KEYS, MASK), (ACTIONS,)), buffers)
    return prefix, denoise, buffers


def expected(pixels, mask):
    keys = 1 + pixels.sum() + mask.sum()
    return 1 + 4 * keys + mask.sum()


def test_runs_on_what_the_caller_wrote(tmp_path, cuda):
    source = plan(tmp_path, 'vision', (PIXELS, MASK), (ACTIONS,))
    with load_engine('tensorrt', source, {}) as engine:
        engine.inputs['pixels'][...] = np.arange(6).reshape(2, 3)
        engine.inputs['prefix_mask'][...] = [True, False, True, False]
        engine.enqueue()
        assert engine.outputs['actions'].tolist() == [[18.0, 18.0]]
        engine.inputs['pixels'][0, 0] = 5
        engine.enqueue()
        assert engine.outputs['actions'].tolist() == [[23.0, 23.0]]
    assert cuda.log == 2 * ['upload', 'upload', 'engine', 'download', 'wait'] + ['wait']


def test_a_chain_hands_on_without_copies(chain, cuda):
    prefix, denoise, buffers = chain
    assert prefix.outputs['keys'] is denoise.inputs['keys'] is buffers['keys']
    assert prefix.mirrors['keys'] is denoise.mirrors['keys']
    buffers['pixels'][...] = 0.5
    buffers['prefix_mask'][...] = [[True, True, True, False]]
    cuda.log.clear()
    prefix.enqueue()
    denoise.enqueue()
    # Of the prefix nothing is copied out, of denoise the mask alone is copied in.
    assert cuda.log == [
        *('upload', 'upload', 'engine', 'wait'),
        *('upload', 'engine', 'download', 'wait'),
    ]
    assert denoise.outputs['actions'][0, 0] == expected(buffers['pixels'], buffers['prefix_mask'])
    assert not buffers['keys'].any()  # the host array of what stays on the GPU


def test_with_a_stream_it_only_queues(chain, cuda):
    prefix, _, _ = chain
    cuda.log.clear()
    prefix.enqueue(stream=7)
    assert cuda.log == ['engine']


def test_buffers_of_the_caller_are_used_in_place(tmp_path, cuda):
    mine = np.full(PIXELS.shape, 0.25, np.float32)
    buffers = {'pixels': mine}
    source = plan(tmp_path, 'vision', (PIXELS,), (ACTIONS,))
    with load_engine('tensorrt', source, buffers) as engine:
        assert engine.inputs['pixels'] is mine
        engine.enqueue()
        assert engine.outputs['actions'][0, 0] == 1 + 6 * 0.25
        with pytest.raises(BackendError, match='pixels.*not page-locked'):
            CapturedChain([engine])


def test_captured_chain_copies_in_runs_and_copies_out(chain, cuda):
    prefix, denoise, buffers = chain
    buffers['pixels'][...] = 1.0
    with CapturedChain([prefix, denoise]) as captured:
        assert captured.name == 'prefix -> denoise'
        buffers['pixels'][...] = 2.0
        buffers['prefix_mask'][...] = [[False, True, False, True]]
        cuda.log.clear()
        captured.run()
        assert cuda.log == ['graph', 'wait']
        assert buffers['actions'][0, 1] == expected(buffers['pixels'], buffers['prefix_mask'])
        buffers['pixels'][...] = -1.0
        captured.launch(3)
        assert buffers['actions'][0, 1] == expected(buffers['pixels'], buffers['prefix_mask'])


def test_what_is_captured(chain, cuda):
    prefix, denoise, _ = chain
    seen = []
    end = cuda.cudaStreamEndCapture

    def ended(stream):
        seen.extend(name for name, _ in cuda.capture)
        return end(stream)

    cuda.cudaStreamEndCapture = ended
    CapturedChain([prefix, denoise])
    # The mask goes up once, though both engines read it; keys never leave the GPU.
    assert seen == ['upload', 'upload', 'engine', 'engine', 'download']
    assert cuda.log.count('engine') == 4  # each once before, for what a first run allocates


def test_what_cannot_be_captured_is_queued_piece_by_piece_and_says_so(chain, cuda, caplog):
    prefix, denoise, buffers = chain
    real = denoise.enqueue

    def fails(*, stream=None):
        denoise._context.fail = cuda.capture is not None
        real(stream=stream)

    denoise.enqueue = fails
    captured = CapturedChain([prefix, denoise])
    assert cuda.capture is None
    assert not captured.captured
    (record,) = caplog.records
    assert 'piece by piece' in record.message
    assert 'denoise: TensorRT did not queue the engine' in record.message
    buffers['pixels'][...] = 2.0
    cuda.log.clear()
    captured.run()
    assert cuda.log == ['upload', 'upload', 'engine', 'engine', 'download', 'wait']
    assert buffers['actions'][0, 1] == expected(buffers['pixels'], buffers['prefix_mask'])


def test_a_capture_is_ended_when_an_engine_fails_otherwise(chain, cuda):
    prefix, denoise, _ = chain
    real = denoise.enqueue

    def fails(*, stream=None):
        if cuda.capture is not None:
            raise BackendError('denoise: out of memory')
        real(stream=stream)

    denoise.enqueue = fails
    with pytest.raises(BackendError, match='denoise: out of memory'):
        CapturedChain([prefix, denoise])
    assert cuda.capture is None


def test_stage_times_and_inputs_that_are_on_the_gpu(chain, cuda):
    prefix, denoise, buffers = chain
    captured = CapturedChain([prefix, denoise], on_gpu={'pixels'})
    cuda.log.clear()
    captured.launch(3)
    captured.wait()
    assert cuda.log == ['graph', 'wait']
    assert captured.stage_ms() == dict.fromkeys(('upload', 'prefix', 'denoise', 'download'), 0.5)
    assert captured.captured
    buffers['prefix_mask'][...] = True
    buffers['pixels'][...] = 9.0  # nobody copies them
    captured.run()
    assert buffers['actions'][0, 0] == expected(0 * buffers['pixels'], buffers['prefix_mask'])


def test_a_chain_must_hold_what_writes_its_inputs(chain):
    prefix, denoise, _ = chain
    with pytest.raises(BackendError, match="denoise: 'keys' is written by an engine that is not"):
        host_copies([denoise])
    with pytest.raises(BackendError, match="denoise: 'keys' is written"):
        host_copies([denoise, prefix])
    with pytest.raises(BackendError, match='one engine at least'):
        CapturedChain([])


def test_closed_engine_refuses_to_run(chain):
    prefix, _, buffers = chain
    prefix.close()
    prefix.close()
    buffers['pixels'][...] = 3  # buffers stay valid
    with pytest.raises(BackendError, match='prefix: the engine is closed'):
        prefix.enqueue()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'target': 'sm_89'}, 'built for sm_89, this device is sm_120: run .* --platform rtx'),
        ({'target': 'sm_87'}, 'built for sm_87, this device is sm_120'),
        (
            {'builder_version': '10.16.1.11'},
            r'built by TensorRT 10\.16\.1\.11, here is TensorRT 10\.13\.3\.9.*vla-trt build',
        ),
    ],
)
def test_engine_of_another_gpu_or_version(tmp_path, cuda, change, message):
    source = plan(tmp_path, 'vision', (PIXELS,), (ACTIONS,), replace(KEY, **change))
    with pytest.raises(BackendError, match=f'vision: the engine was {message}'):
        load_engine('tensorrt', source, {})


def test_platform_of_a_device():
    assert platform_of('sm_110') == 'thor'
    assert platform_of('sm_90') == 'h200'
    assert platform_of('sm_86') == 'NAME'


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        (replace(PIXELS, shape=(3, 3)), r"input 'pixels' is float32 \[2, 3\] in the plan, the"),
        (replace(PIXELS, dtype='int64'), r"input 'pixels' is float32"),
        (replace(PIXELS, name='images'), r"input 'images' is missing in the plan"),
    ],
)
def test_plan_that_differs_from_the_manifest(tmp_path, cuda, spec, message):
    source = plan(tmp_path, 'vision', (PIXELS,), (ACTIONS,))
    with pytest.raises(BackendError, match=message):
        load_engine('tensorrt', replace(source, inputs=(spec,)), {})


def test_plan_with_one_more_tensor(tmp_path, cuda):
    source = plan(tmp_path, 'vision', (PIXELS, MASK), (ACTIONS,))
    with pytest.raises(BackendError, match="one more input, 'prefix_mask'; build it again"):
        load_engine('tensorrt', replace(source, inputs=(PIXELS,)), {})


def test_damaged_plan_tells_what_tensorrt_said(tmp_path, cuda):
    source = plan(tmp_path, 'vision', (PIXELS,), (ACTIONS,))
    source.file.write_bytes(b'half of it')
    with pytest.raises(BackendError, match='cannot read .*vision.plan: .*magicTag failed'):
        load_engine('tensorrt', source, {})


def test_plan_or_record_is_missing(tmp_path, cuda):
    source = plan(tmp_path, 'vision', (PIXELS,), (ACTIONS,))
    with pytest.raises(BackendError, match=r'x\.plan does not exist; build it'):
        load_engine('tensorrt', replace(source, file=tmp_path / 'x.plan'), {})
    record_path(source.file).write_text('{"stage": 3}')
    with pytest.raises(BackendError, match=r'vision\.plan\.json cannot be used'):
        load_engine('tensorrt', source, {})
    record_path(source.file).unlink()
    with pytest.raises(BackendError, match=r'vision\.plan\.json is missing'):
        load_engine('tensorrt', source, {})


def test_no_execution_context(tmp_path, cuda):
    source = plan(tmp_path, 'vision', (PIXELS,), (ACTIONS,), **{'no context': True})
    with pytest.raises(BackendError, match='made no execution context'):
        load_engine('tensorrt', source, {})


def test_gpu_is_full(tmp_path, cuda):
    source = plan(tmp_path, 'vision', (PIXELS,), (ACTIONS,))
    cuda.fail = 'cudaMalloc'
    message = (
        'allocating 24 bytes on the GPU: CUDA says cudaErrorMemoryAllocation.*The GPU is full'
    )
    with pytest.raises(BackendError, match=message):
        load_engine('tensorrt', source, {})


def test_kernels_that_rtx_compiles_are_kept(tmp_path, cuda, monkeypatch):
    key = replace(KEY, flavour='tensorrt_rtx', builder_version='1.7')
    use(monkeypatch, stand_ins.module(cuda, '1.7', runtime_cache=True), 'tensorrt_rtx')
    source = plan(tmp_path, 'vision', (PIXELS,), (ACTIONS,), key)
    for _ in range(2):
        with load_engine('tensorrt', source, {}) as engine:
            engine.enqueue()
            engine.enqueue()
    (kept,) = (tmp_path / 'cache' / 'vla_trt_ros').iterdir()
    assert kept.read_bytes() == b'kernels'
    assert cuda.log.count('cache read 7') == 1


def test_record_survives_the_file(tmp_path):
    key = replace(KEY, workspace_bytes=5)
    record = EngineRecord('v', 'v.onnx', key, 'ab', 7, 1.5, 9, layers=3, fused_attentions=2)
    write_record(tmp_path / 'v.plan', record)
    assert read_record(tmp_path / 'v.plan') == record


def test_key_tells_what_changed():
    assert KEY.difference(KEY) == ''
    changed = replace(KEY, builder_version='11.4', onnx_sha256='1' * 64)
    assert changed.difference(KEY) == 'ONNX changed, builder_version 10.13.3.9 -> 11.4'


def test_no_tensorrt_is_installed(monkeypatch):
    def nothing(flavour):
        raise ImportError(f'No module named {flavour!r}')

    monkeypatch.setattr(trt_module, '_load', nothing)
    with pytest.raises(
        BackendError, match=r"TensorRT-RTX .*pip install 'vla_trt_ros\[trt-build\]"
    ):
        find_tensorrt()
    with pytest.raises(BackendError, match='JetPack has it'):
        find_tensorrt('tensorrt')
    assert trt_module.installed() == ()


def test_logger_keeps_errors_and_feeds_a_listener(cuda):
    trt, heard = find_tensorrt(), []
    severity = trt.module.ILogger.Severity
    trt.listen(heard.append)
    trt.logger.log(severity.WARNING, 'slow')
    trt.logger.log(severity.ERROR, ' broken \n')
    trt.listen(None)
    trt.logger.log(severity.INTERNAL_ERROR, 'very broken')
    assert heard == ['slow', ' broken \n']
    assert trt.last_errors() == 'broken; very broken'
    assert trt.last_errors() == ''
