"""The whole policy on a real GPU: copies counted, memory flat, frames uploaded beside a tick."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from gpu_there import needs_gpu

pytest.importorskip('torch', reason="needs PyTorch: pip install '.[export]'")
pytest.importorskip('onnx', reason="needs ONNX: pip install '.[export]'")

from fast_bundles import make_bundle, observation

from vla_trt_ros.config import PlatformConfig, StageChoice
from vla_trt_ros.gpu import cuda
from vla_trt_ros.policies.registry import load_policy_from

pytestmark = needs_gpu

FRAME = 64 * 64 * 3
CASES = {
    'both': observation('base', 'wrist'),
    'long': observation('base', 'wrist', prompt='reach the goal ' * 8),
    'wrist': observation('wrist'),
}


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp('fast') / 'tiny')


@pytest.fixture(scope='module')
def policy(bundle):
    choice = StageChoice('cuda_graph', 'fp32')
    platform = PlatformConfig('here', 'a test', cuda.device_target(), choice, choice, choice)
    made = load_policy_from(bundle, platform)
    made.warm_up()
    yield made
    made.close()


def noise(policy):
    return np.random.default_rng(3).standard_normal(policy.noise_shape).astype(np.float32)


def arrived(policy, seen):
    """``seen`` as it is when its frames came through the camera callbacks."""
    frames = {view: policy.prepare_frame(view, f) for view, f in seen.frames.items()}
    return replace(seen, frames=frames)


@pytest.mark.parametrize('case', CASES)
def test_copies_are_one_a_frame_and_the_small_inputs(policy, case):
    seen = arrived(policy, CASES[case])
    assert all(frame.gpu is not None for frame in seen.frames.values())
    result = policy.infer(seen, num_steps=3)
    bucket = 48 if case == 'long' else 24
    assert bucket - 24 < result.prompt_tokens <= bucket
    small = 8 * bucket + (policy.config.image_tokens + bucket) + 4 * noise(policy).size
    assert result.uploads == len(seen.frames) + 3
    assert result.upload_bytes == len(seen.frames) * FRAME + small


def test_stages_are_timed_by_the_gpu(policy):
    times = policy.infer(arrived(policy, CASES['both']), num_steps=3).times
    for name in ('preprocess', 'upload', 'vision', 'prefix', 'denoise', 'download', 'postprocess'):
        assert 0 < getattr(times, f'{name}_ms') < 100, name


def test_memory_is_flat_and_results_repeat(policy):
    def tick(case):
        seen = arrived(policy, CASES[case])
        return policy.infer(seen, num_steps=3, noise=noise(policy))

    first = {case: tick(case).actions for case in CASES}
    assert np.abs(first['both'] - first['wrist']).max() > 1e-3
    free = cuda.memory()[0]
    for i in range(300):
        case = list(CASES)[i % 3]
        result = tick(case)
        np.testing.assert_array_equal(result.actions, first[case])
    assert cuda.memory()[0] == free
    total = cuda.memory()[1]
    assert 0 < result.device_memory_mib <= total / (1 << 20)


def test_frames_are_uploaded_in_another_thread_while_a_chunk_is_made(policy):
    wanted = policy.infer(CASES['both'], num_steps=3, noise=noise(policy)).actions
    stop, newest, errors = threading.Event(), [arrived(policy, CASES['both'])], []

    def camera():
        try:
            while not stop.is_set():
                newest[0] = arrived(policy, CASES['both'])
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=camera)
    thread.start()
    try:
        for _ in range(200):
            found = policy.infer(newest[0], num_steps=3, noise=noise(policy)).actions
            np.testing.assert_array_equal(found, wanted)
    finally:
        stop.set()
        thread.join()
    assert not errors
