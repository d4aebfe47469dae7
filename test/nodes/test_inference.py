"""The inference thread without ROS: one chunk per new pair, reasons told once, nothing lost."""

import threading
import time

import pytest
from fakes import FakePolicy, joints, rgb_frame
from inference_world import World

from vla_trt_ros.datatypes import Reason
from vla_trt_ros.errors import BadImage

pytestmark = pytest.mark.alone


@pytest.fixture
def world():
    made = World(FakePolicy())
    made.thread.start()
    yield made
    made.thread.stop()


def test_a_chunk_per_pair(world):
    for i in range(5):
        world.feed()
        world.until(lambda n=i + 1: len(world.results) == n)
    assert [r.chunk.chunk_id for r in world.results] == [0, 1, 2, 3, 4]
    assert world.thread.chunks == 5
    assert world.thread.rate_hz == 2.5


def test_one_camera_alone_is_no_pair(world):
    now = time.time_ns()
    world.pipeline.offer_joints(joints(now, hand_x=0, hand_y=0.5, hand_z=0.2, gripper=1))
    world.pipeline.offer_image('base', rgb_frame(now))
    time.sleep(0.25)
    assert not world.results
    assert world.thread.state.reason is Reason.NO_IMAGE
    assert 'wrist' in world.thread.state.text


def test_bad_image_is_a_state_and_passes(world):
    world.policy.fault = BadImage('jpeg image of 20 bytes does not decode.')
    world.feed()
    world.until(lambda: world.thread.state.reason is Reason.BAD_IMAGE)
    world.policy.fault = None
    world.feed()
    world.until(lambda: world.results)
    assert [s.reason for s in world.states] == [Reason.BAD_IMAGE, Reason.NONE]
    assert world.thread.failures == 1


def test_engine_failure_does_not_end_the_thread(world):
    world.policy.fault = RuntimeError('device lost')
    world.feed()
    world.until(lambda: world.thread.state.reason is Reason.POLICY_ERROR)
    assert 'device lost' in world.thread.state.text
    world.policy.fault = None
    world.feed()
    world.until(lambda: world.results)


def test_stop_is_quick_while_waiting():
    made = World(FakePolicy())
    made.thread.start()
    begin = time.monotonic()
    made.thread.stop()
    assert time.monotonic() - begin < 1.0
    assert threading.active_count() >= 1
    assert not any(t.name == 'inference' for t in threading.enumerate())


def test_rate_is_limited():
    made = World(FakePolicy(), max_rate=20.0)
    made.thread.start()
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        made.feed()
        time.sleep(0.002)
    made.thread.stop()
    assert 15 <= len(made.results) <= 22


@pytest.mark.parametrize('fault', [None, RuntimeError('engine went away')])
def test_between_two_ticks_others_may_look(world, fault):
    world.policy.fault = fault
    world.feed()
    world.until(lambda: world.results or world.thread.failures)
    assert world.pipeline.frames.wait_between(1.0)
