"""Two chunks in the making, on a GPU whose streams race: the same actions as one after the other,
at every order that events allow; and each thing that is there twice is needed twice.
"""

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from camera_pictures import raw_frame
from gpu_stand_in import Cuda, RacingCuda
from host_kernel import HostKernel
from stage_stand_ins import HORIZON, LONG, SHORT, VIEWS, WIDTH, InsideStage, engines

from vla_trt_ros.errors import BackendError, DeviceLost
from vla_trt_ros.gpu import cuda
from vla_trt_ros.policies.pi05 import overlap
from vla_trt_ros.policies.pi05.gpu_runner import GpuRunner
from vla_trt_ros.preprocess.tokenize import Prompt

SEEDS = range(12)
ONCE = ('pixels', 'image_tokens')
"""What both turns share in the package."""


class QueuedKernel(HostKernel):
    """On the stream, with the arguments of its launch."""

    def __init__(self, gpu):
        super().__init__(32)
        self._gpu = gpu

    def launch(self, grid, block, arguments, stream):
        kept = [type(a).from_buffer_copy(a) for a in arguments]
        run = super().launch
        self._gpu.put(stream, lambda: run(grid, block, kept, stream))


def load(gpu, stack, *, overlap=True, once=ONCE):
    """A runner; ``once`` names the arrays that both turns share."""
    held = {}

    def make(*words):
        return InsideStage(gpu, *words)

    made = engines(make, cuda.pinned, held, on_gpu=True, compacts=True)
    if overlap:
        # Addresses are the mirrors' names, so an array that is shared is shared on the GPU too.
        second = {n: a for n, a in held.items() if n.partition(' ')[0] in once}
        beside = engines(make, cuda.pinned, second, on_gpu=True, compacts=True)
        made = replace(made, beside=beside)
    kernel = QueuedKernel(gpu) if isinstance(gpu, RacingCuda) else HostKernel(32)
    return GpuRunner(VIEWS, made, stack, kernel)


@pytest.fixture
def racing(monkeypatch):
    """Makes a GPU of a seed."""

    def make(seed):
        made = RacingCuda(seed)
        monkeypatch.setattr(cuda, 'runtime', lambda: made)
        return made

    return make


def work(i):
    """Frames, prompt, steps and noise of the i-th chunk: no two alike."""
    there = VIEWS if i % 3 else VIEWS[:1]
    frames = {view: raw_frame('bgr8', 20 + 2 * i, 30) for view in there}
    noise = np.random.default_rng(i).standard_normal((HORIZON, WIDTH), dtype=np.float32)
    prompt = Prompt((i, 8, 9), 4) if i % 4 else LONG
    return frames, prompt, (1, 5)[i % 2], noise


def chunks(gpu, count=7, **how):
    """Actions of ``count`` chunks, begun as early as there is a place."""
    found = []
    with ExitStack() as stack:
        runner = load(gpu, stack, **how)
        runner.warm_up()
        running = []
        for i in range(count):
            if len(running) == runner.places:
                found.append(running.pop(0).finish().actions)
            running.append(runner.submit(*work(i)))
            gpu.go_on()
        found += [r.finish().actions for r in running]
    return np.array(found)


def test_actions_are_those_of_one_after_the_other_at_any_order(racing):
    wanted = chunks(racing(0), overlap=False)
    assert len({a.tobytes() for a in wanted}) == len(wanted)
    for seed in SEEDS:
        np.testing.assert_array_equal(chunks(racing(seed)), wanted)


@pytest.mark.parametrize('thing', ['keys', 'noise', 'actions', 'tokens'])
def test_what_is_there_twice_has_to_be(racing, thing):
    wanted = chunks(racing(0), overlap=False)
    found = [chunks(racing(seed), once=(*ONCE, thing)) for seed in SEEDS]
    assert not all(np.array_equal(one, wanted) for one in found)


@pytest.mark.parametrize('forgotten', ['hold', 'record'])
def test_the_events_are_needed(racing, monkeypatch, forgotten):
    wanted = chunks(racing(0), overlap=False)
    real = getattr(cuda.Event, forgotten)

    def forget(self, stream):
        if self not in ordering:
            real(self, stream)

    ordering = set()
    made = overlap.TwoGraphs.__init__

    def remember(self, encode, decode, encoded, decoded):
        made(self, encode, decode, encoded, decoded)
        ordering.update((encoded, decoded))

    monkeypatch.setattr(overlap.TwoGraphs, '__init__', remember)
    monkeypatch.setattr(cuda.Event, forgotten, forget)
    found = [chunks(racing(seed)) for seed in SEEDS]
    assert not all(np.array_equal(one, wanted) for one in found)


def test_decode_runs_while_the_next_encode_does(racing):
    """At some order the steps of a chunk run behind the prefix of the next one."""
    orders = set()
    for seed in SEEDS:
        gpu = racing(seed)
        with ExitStack() as stack:
            runner = load(gpu, stack)
            ran = []
            for turn in runner._turns:
                for engine in (turn.engines.chains[4].prefix, turn.engines.chains[4].denoise[1]):
                    engine.compute = note(engine, turn, runner, ran)
            first, second = (
                runner.submit(work(0)[0], SHORT, 1, np.zeros((HORIZON, WIDTH), np.float32))
                for _ in range(2)
            )
            ran.clear()
            first.finish()
            second.finish()
            orders.add(' '.join(ran))
    assert orders == {'p0 d0 p1 d1', 'p0 p1 d0 d1'}


def note(engine, turn, runner, ran):
    compute, number = engine.compute, runner._turns.index(turn)

    def run(i, o):
        ran.append(f'{engine.name[0]}{number}')
        compute(i, o)

    return run


@pytest.fixture
def gpu(monkeypatch):
    made = Cuda()
    monkeypatch.setattr(cuda, 'runtime', lambda: made)
    return made


@pytest.fixture
def runner(gpu):
    with ExitStack() as stack:
        made = load(gpu, stack)
        made.stack = stack
        yield made


def test_a_chunk_is_two_graphs_and_decode_goes_first_where_both_wait(runner, gpu):
    gpu.log.clear()
    runner.submit(*work(1)).finish()
    assert [entry for entry in gpu.log if entry == 'graph'] == 2 * ['graph']
    chain = runner._turns[0].engines.chain(2, 4, 5)
    decode = chain.captured.decode.stream.handle
    encode = chain.captured.encode.stream.handle
    assert encode == runner._stream.handle != decode
    assert gpu.priorities == {encode: -1, decode: -2}  # lower numbers go first


def test_stage_times_are_of_both_graphs(runner):
    times = runner.submit(*work(1)).finish().times
    assert (times.vision_ms, times.prefix_ms, times.denoise_ms) == (0.5, 0.5, 0.5)
    assert times.upload_ms == 0.5 + 2 * 0.5  # pixels, then the copies of both graphs
    assert times.download_ms == 2 * 0.5


def test_copies_are_counted_for_each_chunk(runner):
    ran = runner.submit(*work(1)).finish()
    assert ran.uploads == 2 + 3


def test_two_places_and_no_third(runner):
    first, second = runner.submit(*work(0)), runner.submit(*work(1))
    with pytest.raises(BackendError, match='2 of 2 chunks are in the making: take a result first'):
        runner.submit(*work(2))
    second.finish()
    third = runner.submit(*work(2))
    first.finish()
    third.finish()
    with pytest.raises(BackendError, match='taken before'):
        third.finish()
    assert len(runner._free) == 2


def test_a_launch_that_fails_leaves_the_other_chunk_and_its_own_place(runner, gpu, monkeypatch):
    wanted = runner.submit(*work(0)).finish().actions
    first = runner.submit(*work(0))
    launch, count = gpu.cudaGraphLaunch, iter(range(99))

    def second_fails(graph, stream):
        if next(count) == 1:  # the steps; vision and prefix are queued
            return (type('Status', (int,), {'name': 'cudaErrorInvalidValue'})(1),)
        return launch(graph, stream)

    monkeypatch.setattr(gpu, 'cudaGraphLaunch', second_fails)
    with pytest.raises(BackendError, match='launching a CUDA graph'):
        runner.submit(*work(1))
    np.testing.assert_array_equal(first.finish().actions, wanted)
    np.testing.assert_array_equal(runner.submit(*work(0)).finish().actions, wanted)
    assert len(runner._free) == 2


def test_a_lost_gpu_is_told_by_both_results(runner, gpu, monkeypatch):
    both = runner.submit(*work(0)), runner.submit(*work(1))
    lost = type('Status', (int,), {'name': 'cudaErrorIllegalAddress'})(700)
    monkeypatch.setattr(gpu, 'cudaEventSynchronize', lambda event: (lost,))
    for running in both:
        with pytest.raises(DeviceLost, match='restart the node'):
            running.finish()
    assert len(runner._free) == 2


def test_closing_waits_for_what_is_in_the_making(racing):
    gpu = racing(3)
    with ExitStack() as stack:
        runner = load(gpu, stack)
        wanted = runner.submit(*work(0)).finish().actions
        running = runner.submit(*work(0))
    assert not gpu.step()  # nothing is left to run
    np.testing.assert_array_equal(running.finish().actions, wanted)
    with pytest.raises(BackendError, match='the policy is closed'):
        runner.submit(*work(0))


def test_the_second_set_is_not_there_without_overlap(gpu):
    with ExitStack() as stack:
        runner = load(gpu, stack, overlap=False)
        assert runner.places == 1
        assert gpu.priorities == {runner._stream.handle: -1}
        gpu.log.clear()
        running = runner.submit(*work(0))
        assert gpu.log.count('graph') == 1
        with pytest.raises(BackendError, match='1 of 1 chunks are in the making'):
            runner.submit(*work(1))
        running.finish()
