"""A tick on a GPU, on a stand-in: the same actions as on the CPU; one kernel, one graph and
one wait.
"""

import gc
import logging
import tracemalloc
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import pytest
from camera_pictures import raw_frame
from gpu_stand_in import Cuda
from host_kernel import HostKernel
from stage_stand_ins import (
    HORIZON,
    LONG,
    SHORT,
    STEPS,
    VIEWS,
    WIDTH,
    GpuStage,
    Stage,
    engines,
)

from vla_trt_ros.errors import BackendError, DeviceLost
from vla_trt_ros.gpu import cuda
from vla_trt_ros.policies.pi05.gpu_runner import GpuRunner
from vla_trt_ros.policies.pi05.runner import HostRunner


@pytest.fixture
def gpu(monkeypatch):
    made = Cuda()
    monkeypatch.setattr(cuda, 'runtime', lambda: made)
    return made


@pytest.fixture(params=[True, False], ids=['compacts', 'masks'])
def runner(gpu, request):
    def make(*words):
        return GpuStage(gpu, *words)

    with ExitStack() as stack:
        held = engines(make, cuda.pinned, on_gpu=True, compacts=request.param)
        made = GpuRunner(VIEWS, held, stack, HostKernel(32))
        made.stack = stack
        yield made


@pytest.fixture
def host():
    return HostRunner(VIEWS, engines(Stage, np.zeros))


def frames(*views):
    made = {'base': raw_frame('bgr8', 48, 64), 'wrist': raw_frame('yuyv', 30, 40, noise=True)}
    return {view: made[view] for view in views}


def noise(seed=0):
    return np.random.default_rng(seed).standard_normal((HORIZON, WIDTH), dtype=np.float32)


def run(runner, there, prompt, steps):
    return runner.submit(there, prompt, steps, noise()).finish()


@pytest.mark.parametrize('there', [VIEWS, ('base',), ('wrist',)])
@pytest.mark.parametrize('prompt', [SHORT, LONG])
@pytest.mark.parametrize('steps', STEPS)
def test_actions_are_the_cpu_s(runner, host, there, prompt, steps):
    for used in (runner, host):
        used.warm_up()
    got, wanted = (run(used, frames(*there), prompt, steps).actions for used in (runner, host))
    np.testing.assert_allclose(got, wanted, atol=0.02)  # a level of 255 here and there
    assert np.abs(wanted - noise() * steps).min() > sum(prompt.tokens)


def test_a_tick_is_one_kernel_one_graph_and_one_wait(runner, gpu):
    sent = {view: runner.prepare(view, frame) for view, frame in frames(*VIEWS).items()}
    run(runner, sent, SHORT, 5)
    kernel = runner._images._writer._kernel
    before = kernel.launches
    gpu.log.clear()
    ran = run(runner, sent, SHORT, 5)
    waits = gpu.log.count('wait')
    assert [entry for entry in gpu.log if entry != 'wait'] == ['graph']
    assert gpu.log[:2] == ['graph', 'wait']
    assert waits == 1  # times are there then
    assert kernel.launches == before + 1
    assert ran.times.engine_ms == 1.5
    assert (ran.times.upload_ms, ran.times.download_ms) == (1.0, 0.5)
    assert ran.times.preprocess_ms > 0


def test_copies_are_one_a_frame_and_the_small_inputs(runner, gpu):
    sent = {view: runner.prepare(view, frame) for view, frame in frames(*VIEWS).items()}
    small = SHORT.bucket * 8 + (2 + SHORT.bucket) + HORIZON * WIDTH * 4
    for there, count, nbytes in [
        (VIEWS, 2, 48 * 64 * 3 + 30 * 40 * 2),
        (('base',), 1, 48 * 64 * 3),
    ]:
        ran = run(runner, {view: sent[view] for view in there}, SHORT, 1)
        assert (ran.uploads, ran.upload_bytes) == (count + 3, nbytes + small)
    # What did not come through `prepare` is copied in the tick, and counted once.
    assert run(runner, frames('base'), SHORT, 1).uploads == 1 + 3


def test_nothing_is_allocated_once_it_runs(runner, gpu, monkeypatch):
    sent = {view: runner.prepare(view, frame) for view, frame in frames(*VIEWS).items()}

    def tick(i):
        run(runner, sent, (SHORT, LONG)[i % 2], STEPS[i // 2 % 2])
        gpu.log.clear()

    for i in range(8):
        tick(i)
    monkeypatch.setattr(gpu, '_allocate', lambda count: pytest.fail('memory for the GPU'))
    tracemalloc.start()
    try:
        held = []
        for _ in range(3):
            for i in range(200):
                tick(i)
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
        # A cache of Python's may grow once in between, not in every round.
        assert min(after - before for before, after in pairwise(held)) < 4096
    finally:
        tracemalloc.stop()


def test_memory_is_told_and_asked_again_after_a_second(runner, gpu, monkeypatch):
    sent = runner.prepare('base', frames('base')['base'])
    assert run(runner, {'base': sent}, SHORT, 1).device_memory_mib == 40 * 1024
    gpu.free = 39 << 30
    monkeypatch.setattr(runner, '_memory_due', 0.0)
    sent = runner.prepare('base', frames('base')['base'])
    assert run(runner, {'base': sent}, SHORT, 1).device_memory_mib == 41 * 1024


@pytest.mark.parametrize(('integrated', 'transport'), [(False, 'pinned'), (True, 'mapped')])
def test_transport(gpu, integrated, transport):
    gpu.integrated = integrated
    with ExitStack() as stack:
        held = engines(
            lambda *words: GpuStage(gpu, *words), cuda.pinned, on_gpu=True, compacts=True
        )
        made = GpuRunner(VIEWS, held, stack, HostKernel(32))
        assert made.transport == transport
        sent = made.prepare('base', frames('base')['base'])
        # A mapped frame takes no copy; the small inputs are copied either way.
        assert run(made, {'base': sent}, SHORT, 1).uploads == 3 + (not integrated)


def test_capture_is_told_to_the_log(gpu, caplog):
    caplog.set_level(logging.INFO)
    with ExitStack() as stack:
        held = engines(
            lambda *words: GpuStage(gpu, *words), cuda.pinned, on_gpu=True, compacts=True
        )
        GpuRunner(VIEWS, held, stack, HostKernel(32))
    assert '8 of 8 CUDA graphs captured' in caplog.text


def test_a_step_count_that_was_not_captured(runner):
    with pytest.raises(BackendError, match='no graph was captured for .* 4 prompt tokens and 3'):
        run(runner, frames(*VIEWS), SHORT, 3)


def test_a_launch_that_fails_passes_and_a_lost_gpu_says_so(runner, gpu, monkeypatch):
    def fails(name, number):
        status = type('Status', (int,), {'name': name})(number)
        return lambda *rest: (status,)

    with monkeypatch.context() as once:
        once.setattr(gpu, 'cudaGraphLaunch', fails('cudaErrorInvalidValue', 1))
        with pytest.raises(BackendError, match='launching a CUDA graph'):
            run(runner, frames(*VIEWS), SHORT, 1)
    run(runner, frames(*VIEWS), SHORT, 1)
    monkeypatch.setattr(gpu, 'cudaStreamSynchronize', fails('cudaErrorIllegalAddress', 700))
    with pytest.raises(DeviceLost, match='restart the node'):
        run(runner, frames(*VIEWS), SHORT, 1)


def test_after_close_nothing_is_launched(runner):
    runner.stack.close()
    with pytest.raises(BackendError, match='the policy is closed'):
        run(runner, frames(*VIEWS), SHORT, 1)
