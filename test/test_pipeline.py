"""One tick without ROS: what goes in, what comes out, and what stands against it."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import FakePolicy, joints, rgb_frame

from vla_trt_ros.config import PolicyConfig, load_platform, load_robot
from vla_trt_ros.datatypes import ChunkFlag, Reason, prompt_hash
from vla_trt_ros.errors import BackendError, BadAction, BadPrompt, ConfigError, DeviceLost
from vla_trt_ros.pipeline import Pipeline

MS = 1_000_000
T0 = 1_000_000 * MS
HAND = {'hand_x': 0.1, 'hand_y': 0.6, 'hand_z': 0.2, 'gripper': 1.0}


def pipeline(prompt: str = 'reach the goal') -> tuple[Pipeline, FakePolicy]:
    policy = FakePolicy()
    made = Pipeline(
        policy,
        load_robot('metaworld'),
        load_platform('cpu'),
        PolicyConfig('pi05', 'fake', deadline_ms=50),
    )
    if prompt:
        made.set_prompt(prompt)
    return made, policy


def feed(made: Pipeline, at_ns: int, wrist_ns: int | None = None, **hand: float) -> None:
    made.offer_image('base', rgb_frame(at_ns))
    made.offer_image('wrist', rgb_frame(wrist_ns or at_ns))
    made.offer_joints(joints(at_ns, **{**HAND, **hand}))


def test_chunk_is_absolute_stamped_with_the_oldest_exposure_and_tied_to_its_makers():
    made, policy = pipeline()
    feed(made, T0, wrist_ns=T0 - 7 * MS)
    result = made.tick(T0 + 20 * MS)
    chunk = result.chunk
    np.testing.assert_allclose(chunk.actions[:, 0], 0.1 + 0.01 * np.arange(1, 11), rtol=1e-5)
    np.testing.assert_allclose(chunk.actions[:, 1], 0.6, rtol=1e-6)
    np.testing.assert_array_equal(chunk.actions[:, 3], 0.0)
    assert chunk.names == ('hand_x', 'hand_y', 'hand_z', 'gripper')
    assert chunk.start_ns == chunk.observation_ns == T0 - 7 * MS
    assert chunk.step_ns == 50 * MS
    assert chunk.prompt_hash == prompt_hash('reach the goal')
    assert chunk.policy_hash == 'f' * 64
    assert chunk.num_steps == 10
    timing = result.timing
    assert timing.image_age_ms == (20.0, 27.0)
    assert timing.camera_skew_ms == 7.0
    assert timing.state_age_ms == 20.0
    assert timing.stages.engine_ms == 6.0
    observation, steps = policy.asked[0]
    assert observation.prompt == 'reach the goal'
    assert steps == 10


def test_timing_tells_what_went_to_the_gpu(monkeypatch):
    made, policy = pipeline()
    feed(made, T0)
    timing = made.tick(T0).timing
    assert (timing.uploads, timing.upload_bytes, timing.device_memory_mib) == (0, 0, 0.0)
    infer = policy.infer
    monkeypatch.setattr(
        policy,
        'infer',
        lambda *a, **k: replace(infer(*a, **k), uploads=3, upload_bytes=9, device_memory_mib=7.5),
    )
    feed(made, T0 + MS)
    timing = made.tick(T0 + MS).timing
    assert (timing.uploads, timing.upload_bytes, timing.device_memory_mib) == (3, 9, 7.5)


def test_state_is_where_the_joints_were_at_the_exposure():
    made, policy = pipeline()
    made.offer_joints(joints(T0 - 10 * MS, **{**HAND, 'hand_x': 0.0}))
    feed(made, T0 + 10 * MS, wrist_ns=T0, hand_x=0.2)
    made.tick(T0 + 20 * MS)
    np.testing.assert_allclose(policy.asked[0][0].state[0], 0.1, rtol=1e-6)


def test_ids_flags_and_run():
    made, _ = pipeline()
    chunks = []
    for i in range(3):
        feed(made, T0 + i * 100 * MS)
        chunks.append(made.tick(T0 + i * 100 * MS).chunk)
    assert [c.chunk_id for c in chunks] == [0, 1, 2]
    assert [c.step_index0 for c in chunks] == [0, 2, 4]
    assert [c.execute_count for c in chunks] == [1, 2, 2]
    assert [bool(c.flags & ChunkFlag.FIRST) for c in chunks] == [True, False, False]
    made.set_prompt('push the puck')
    feed(made, T0 + 300 * MS)
    assert made.tick(T0 + 300 * MS).chunk.flags & ChunkFlag.FIRST
    made.reset()
    feed(made, T0 + 400 * MS)
    again = made.tick(T0 + 400 * MS).chunk
    assert again.chunk_id == 0
    assert again.run_id != chunks[0].run_id


def test_num_steps_takes_effect_on_the_next_chunk():
    made, policy = pipeline()
    for i, steps in enumerate((10, 3, 1)):
        made.set_num_steps(steps)
        feed(made, T0 + i * MS)
        assert made.tick(T0 + i * MS).chunk.num_steps == steps
    assert [steps for _, steps in policy.asked] == [10, 3, 1]
    with pytest.raises(ConfigError, match='num_steps 2 is not in this bundle, which has 1, 3, 10'):
        made.set_num_steps(2)
    assert made.num_steps == 1


def test_refused_prompt_leaves_the_old_one():
    made, _ = pipeline()
    with pytest.raises(BadPrompt):
        made.set_prompt('  ')
    assert made.prompt == 'reach the goal'


def test_reasons_in_the_order_of_the_way():
    made, _ = pipeline(prompt='')
    assert made.readiness(T0).reason is Reason.NO_PROMPT
    made.set_prompt('go')
    assert made.readiness(T0).reason is Reason.NO_IMAGE
    made.offer_image('base', rgb_frame(T0))
    made.offer_image('wrist', rgb_frame(T0))
    assert made.readiness(T0).reason is Reason.NO_STATE
    made.offer_joints(joints(T0, **HAND))
    assert made.readiness(T0).ok
    assert made.readiness(T0 + 200 * MS).reason is Reason.STALE_STATE
    assert made.readiness(T0 + 300 * MS).reason is Reason.STALE_IMAGE


def test_nan_joint_holds_at_once_until_good_ones_come():
    made, _ = pipeline()
    feed(made, T0)
    made.offer_joints(joints(T0 + MS, **{**HAND, 'hand_x': float('nan')}))
    found = made.readiness(T0 + MS)
    assert found.reason is Reason.BAD_STATE
    assert 'hand_x is nan' in found.text
    feed(made, T0 + 2 * MS)
    assert made.readiness(T0 + 2 * MS).ok


def test_missing_joint_holds_once_the_last_good_ones_are_old():
    made, _ = pipeline()
    feed(made, T0)
    made.offer_joints(joints(T0 + MS, hand_y=1.0, hand_z=1.0))
    assert made.readiness(T0 + MS).ok
    found = made.readiness(T0 + 160 * MS)
    assert found.reason is Reason.BAD_STATE
    assert 'joint states lack hand_x, gripper; they name hand_y, hand_z' in found.text


def test_reordered_joints_and_strangers_do_not_matter():
    made, policy = pipeline()
    made.offer_image('base', rgb_frame(T0))
    made.offer_image('wrist', rgb_frame(T0))
    made.offer_joints(joints(T0, gripper=0.5, right_j0=9.0, hand_z=3.0, hand_y=2.0, hand_x=1.0))
    made.tick(T0)
    np.testing.assert_allclose(policy.asked[0][0].state, [1.0, 2.0, 3.0, 0.5])


def test_nan_from_the_policy_is_no_chunk():
    made, policy = pipeline()
    policy.fill = float('nan')
    feed(made, T0)
    with pytest.raises(BadAction, match='NaN or Inf'):
        made.tick(T0)
    policy.fill = 0.0
    feed(made, T0 + MS)
    chunk = made.tick(T0 + MS).chunk
    assert chunk.chunk_id == 0
    assert chunk.flags & ChunkFlag.FIRST


def test_rows_outside_the_limits_are_clamped_and_counted():
    made, _ = pipeline()
    feed(made, T0, hand_x=0.47)
    chunk = made.tick(T0).chunk
    assert chunk.actions[:, 0].max() == np.float32(0.525)
    assert chunk.clamped == 5
    assert chunk.flags & ChunkFlag.CLAMPED


def test_the_same_noise_after_every_reset():
    made, policy = pipeline()
    made.reset()
    assert policy.seeds == [0, 0]


def test_a_frame_that_the_gpu_does_not_take_is_counted_and_told():
    made, policy = pipeline()
    feed(made, T0)
    policy.upload_fault = BackendError('allocating 9 bytes on the GPU: it is full.')
    feed(made, T0 + MS)
    assert made.frames.stats()['base'].rejected == 1
    assert made.frames.newest('base').stamp_ns == T0
    found = made.readiness(T0 + 300 * MS)
    assert found.reason is Reason.BAD_IMAGE
    assert 'it is full' in found.text


@pytest.mark.parametrize('where', ['fault', 'upload_fault'])
def test_a_lost_gpu_is_the_end_of_this_pipeline(where):
    made, policy = pipeline()
    feed(made, T0)
    assert made.readiness(T0).ok
    setattr(policy, where, DeviceLost('the GPU is gone: restart the node.'))
    if where == 'fault':
        with pytest.raises(DeviceLost):
            made.tick(T0)
    else:
        feed(made, T0 + MS)
        assert made.frames.stats()['base'].rejected == 0
    policy.fault = policy.upload_fault = None
    made.reset()
    feed(made, T0 + MS)
    found = made.readiness(T0 + MS)
    assert found.reason is Reason.POLICY_ERROR
    assert found.text == made.lost == 'the GPU is gone: restart the node.'


def test_an_engine_that_fails_is_not_the_end():
    made, policy = pipeline()
    feed(made, T0)
    policy.fault = BackendError('denoise: did not run.')
    with pytest.raises(BackendError, match='did not run'):
        made.tick(T0)
    policy.fault = None
    feed(made, T0 + MS)
    assert made.readiness(T0 + MS).ok
    assert made.tick(T0 + MS).chunk.chunk_id == 0


def test_ticks_are_begun_before_the_one_before_is_finished():
    made, policy = pipeline()
    feed(made, T0, hand_x=0.1)
    first = made.submit(T0)
    feed(made, T0 + 50 * MS, hand_x=0.3)
    made.set_num_steps(3)
    second = made.submit(T0 + 60 * MS)
    made.set_prompt('push the puck')
    feed(made, T0 + 100 * MS)
    policy.fault = BackendError('the engine failed.')
    with pytest.raises(BackendError, match='the engine failed'):
        made.submit(T0 + 100 * MS)
    policy.fault = None
    chunks = [made.finish(tick).chunk for tick in (first, second)]
    feed(made, T0 + 150 * MS)
    chunks.append(made.tick(T0 + 150 * MS).chunk)
    assert [c.chunk_id for c in chunks] == [0, 1, 2]
    assert [c.start_ns - T0 for c in chunks] == [0, 50 * MS, 150 * MS]
    assert [c.num_steps for c in chunks] == [10, 3, 3]
    # The hand of each tick's own exposure, and blended unless it is the first of its prompt.
    np.testing.assert_allclose([c.actions[0, 0] for c in chunks[:2]], [0.11, 0.31], rtol=1e-5)
    assert [bool(c.flags & ChunkFlag.FIRST) for c in chunks] == [True, False, True]
    assert chunks[1].prompt_hash == prompt_hash('reach the goal')


def test_timing_of_an_overlapped_tick_is_from_its_own_submit():
    made, _ = pipeline()
    feed(made, T0, wrist_ns=T0 - MS)
    begun = made.submit(T0 + 5 * MS)
    feed(made, T0 + 30 * MS)
    timing = made.finish(begun).timing
    assert timing.image_age_ms == (5.0, 6.0)
    assert timing.camera_skew_ms == 1.0
    assert timing.state_age_ms == 5.0
    assert timing.frames_received == (2, 2)
