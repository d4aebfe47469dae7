"""Overlapping chunks on a real GPU: bit for bit those of one after the other."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from gpu_there import has_gpu, needs_gpu

pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
pytest.importorskip('onnx', reason="needs ONNX: pip install '.[export]'")

from fast_bundles import SERVED, TINY, make_bundle, observation

from vla_trt_ros.config import PlatformConfig, StageChoice
from vla_trt_ros.errors import BackendError
from vla_trt_ros.gpu import cuda
from vla_trt_ros.policies.registry import load_policy_from

pytestmark = needs_gpu

SEEN = (
    observation('base', 'wrist'),
    observation('base', 'wrist', prompt='push the puck'),
    observation('wrist'),
    observation('base', 'wrist', prompt='reach the goal ' * 5),
    observation('base'),
)
"""Views and buckets change from chunk to chunk: every graph follows every other."""


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp('fast') / 'tiny', TINY)


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp('fast') / 'served', SERVED, (), gain=1.0)


@contextmanager
def loaded(bundle, precision, overlap):
    choice = StageChoice('cuda_graph', precision)
    platform = PlatformConfig('here', 'a test', cuda.device_target(), choice, choice, choice)
    policy = load_policy_from(bundle, platform, overlap=overlap)
    try:
        policy.warm_up()
        yield policy
    finally:
        policy.close()


def noise(policy, i):
    return np.random.default_rng(i).standard_normal(policy.noise_shape).astype(np.float32)


def seen(i):
    """The i-th observation, with a state of its own."""
    given = SEEN[i % len(SEEN)]
    return replace(given, state=given.state + np.float32(0.01 * (i % 7)))


def serial(policy, count):
    return [
        policy.infer(seen(i), num_steps=3, noise=noise(policy, i)).actions for i in range(count)
    ]


def overlapped(policy, count):
    found, running = [], []
    for i in range(count):
        if len(running) == policy.places:
            found.append(running.pop(0).result().actions)
        running.append(policy.submit(seen(i), num_steps=3, noise=noise(policy, i)))
    return found + [pending.result().actions for pending in running]


def check(bundle, precision, count):
    with loaded(bundle, precision, False) as policy:
        assert policy.places == 1
        wanted = serial(policy, count)
    with loaded(bundle, precision, True) as policy:
        assert policy.places == 2
        np.testing.assert_array_equal(serial(policy, count), wanted)
        free = cuda.memory()[0]
        for _ in range(5):
            np.testing.assert_array_equal(overlapped(policy, count), wanted)
        assert cuda.memory()[0] == free
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-4


@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp8'])
def test_actions_are_those_of_one_after_the_other(tiny, precision):
    check(tiny, precision, 40)


@pytest.mark.skipif(not has_gpu() or cuda.device_target() != 'sm_90', reason='needs sm_90')
@pytest.mark.parametrize('precision', ['bf16', 'fp8'])
def test_the_same_with_the_fast_kernels(served, precision, caplog):
    check(served, precision, 40)
    assert 'plain PyTorch operations' not in caplog.text


def test_times_places_and_the_turn(tiny):
    with loaded(tiny, 'bf16', True) as policy:
        policy.wait_turn()
        running = [policy.submit(seen(i), num_steps=3) for i in range(2)]
        with pytest.raises(BackendError, match='2 of 2 chunks are in the making'):
            policy.submit(seen(2), num_steps=3)
        policy.wait_turn()
        for pending in running:
            result = pending.result()
            assert result.uploads == 5
            for name in ('upload', 'vision', 'prefix', 'denoise', 'download'):
                assert 0 < getattr(result.times, f'{name}_ms') < 100, name


def test_steps_go_first(tiny):
    with loaded(tiny, 'bf16', True) as policy:
        cudart = cuda.runtime()
        _, least, greatest = cudart.cudaDeviceGetStreamPriorityRange()
        for turn in policy._runner._turns:
            for chain in turn.engines.captured.values():
                assert chain.captured.captured
                both = chain.captured.encode.stream, chain.captured.decode.stream
                found = [
                    cuda.check(cudart.cudaStreamGetPriority(s.handle), 'asking') for s in both
                ]
                # Lower numbers go first; detectors beside them have the least.
                assert found == [least - 1, least - 2]
                assert least - 2 >= greatest


def test_closing_with_a_chunk_in_the_making(tiny):
    with loaded(tiny, 'bf16', True) as policy:
        wanted = serial(policy, 1)[0]
        pending = policy.submit(seen(0), num_steps=3, noise=noise(policy, 0))
        policy.close()
        np.testing.assert_array_equal(pending.result().actions, wanted)
        with pytest.raises(BackendError, match='closed'):
            policy.submit(seen(0), num_steps=3)
