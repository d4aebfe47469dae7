"""The thread that takes turns at the cameras: what it looks at, what it leaves out and counts."""

import os
import threading
import time

import numpy as np
import pytest
from fakes import rgb_frame

from vla_trt_ros.camera.latest import LatestFrames
from vla_trt_ros.config import CameraConfig
from vla_trt_ros.errors import BadImage
from vla_trt_ros.nodes.perception_thread import NICE, PerceptionThread, lower_priority
from vla_trt_ros.perception.choice import Turn
from vla_trt_ros.perception.scene import Scene

pytestmark = pytest.mark.alone

MS = 1_000_000


class Looker:
    """A Perception that keeps what it was shown; ``fault`` is raised, ``takes`` seconds pass."""

    def __init__(self):
        self.shown = []
        self.fault = None
        self.takes = 0.0

    def look(self, view, frame):
        self.shown.append((view, frame.stamp_ns))
        time.sleep(self.takes)
        if self.fault is not None:
            raise self.fault
        return Scene(view, frame.stamp_ns, frame.frame_id, frame.width, frame.height)


class Eye:
    """A thread under test, with its slots and what came out of it."""

    def __init__(self, after_chunk=False, **turns):
        cameras = {view: CameraConfig(f'{view}/image_raw', max_age_ms=200) for view in turns}
        self.frames = LatestFrames(cameras, max_skew_ms=1e9)
        self.slots = self.frames
        self.looker = Looker()
        self.scenes = []
        self.faults = []
        self.thread = PerceptionThread(
            self.looker,
            lambda: self.slots,
            turns,
            dict.fromkeys(turns, 200.0),
            time.time_ns,
            lambda scene, frame, begin_ns: self.scenes.append((scene, frame, begin_ns)),
            lambda view, text: self.faults.append((view, text)),
            after_chunk=after_chunk,
        )

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.stop()

    def show(self, view='base', age_ms=0):
        stamp = time.time_ns() - age_ms * MS
        self.frames.offer(view, rgb_frame(stamp, np.zeros((4, 4, 3), np.uint8)))
        return stamp

    def until(self, condition, what):
        end = time.monotonic() + 5.0
        while not condition():
            assert time.monotonic() < end, what
            time.sleep(0.002)


def test_each_new_frame_is_looked_at_once():
    with Eye(base=Turn(hz=200.0)) as eye:
        stamps = []
        for k in range(3):
            stamps.append(eye.show())
            eye.until(lambda k=k: len(eye.scenes) > k, 'a scene')
        time.sleep(0.05)
    assert [scene.stamp_ns for scene, _, _ in eye.scenes] == stamps
    scene, frame, begin_ns = eye.scenes[0]
    assert frame.stamp_ns == scene.stamp_ns <= begin_ns
    assert eye.thread.counters['base']['looks'] == 3
    assert eye.thread.last_ns == {'base': stamps[-1]}


def test_every_third_frame():
    with Eye(base=Turn(every=3)) as eye:
        shown = []
        for _ in range(7):
            shown.append(eye.show())
            time.sleep(0.03)
    assert [stamp for _, stamp in eye.looker.shown] == shown[::3]


def test_a_slow_look_costs_turns_of_its_own_camera_and_no_more():
    with Eye(base=Turn(hz=50.0), wrist=Turn(hz=5.0)) as eye:
        eye.looker.takes = 0.06
        for _ in range(30):
            eye.show('base')
            eye.show('wrist')
            time.sleep(0.02)
    seen = [view for view, _ in eye.looker.shown]
    assert seen.count('wrist') >= 3
    assert seen.count('base') >= 4
    assert eye.thread.counters['base']['skipped'] > 5


def test_after_chunk_a_look_begins_when_the_tick_is_over():
    with Eye(after_chunk=True, base=Turn(hz=200.0)) as eye:
        eye.show()
        eye.until(lambda: eye.scenes, 'a scene without a policy')
        eye.frames.take()  # a tick is under way, and takes the next frame
        stamp = eye.show()
        eye.frames.take()
        time.sleep(0.05)
        assert len(eye.scenes) == 1
        eye.frames.ticked()
        eye.until(lambda: len(eye.scenes) == 2, 'a scene')
    assert eye.scenes[-1][0].stamp_ns == stamp


def test_after_chunk_a_tick_that_hangs_is_looked_beside():
    with Eye(after_chunk=True, base=Turn(hz=200.0)) as eye:
        eye.frames.take()
        stamp = eye.show()
        eye.until(lambda: eye.scenes, 'a scene')
    assert eye.scenes[0][0].stamp_ns == stamp


def test_old_frames_are_counted_and_not_looked_at():
    with Eye(base=Turn(hz=100.0)) as eye:
        eye.show(age_ms=500)
        eye.until(lambda: eye.thread.counters['base']['stale'], 'a stale frame')
        time.sleep(0.05)
    assert eye.looker.shown == []
    assert eye.thread.counters['base']['stale'] == 1


@pytest.mark.parametrize(
    ('fault', 'counter', 'words'),
    [
        (BadImage('the image is truncated.'), 'rejected', 'the image is truncated'),
        (RuntimeError('engine went away'), 'failed', "RuntimeError('engine went away')"),
    ],
)
def test_a_look_that_fails_is_told_and_the_next_one_comes(fault, counter, words):
    with Eye(base=Turn(hz=100.0)) as eye:
        eye.looker.fault = fault
        eye.show()
        eye.until(lambda: eye.faults, 'a fault')
        eye.looker.fault = None
        eye.show()
        eye.until(lambda: eye.scenes, 'a scene after it')
    (view, text), *_ = eye.faults
    assert view == 'base'
    assert words in text
    assert eye.thread.counters['base'][counter] == 1


def test_it_waits_while_the_policy_node_has_no_cameras():
    with Eye(base=Turn(hz=100.0)) as eye:
        eye.slots = None
        eye.show()
        time.sleep(0.05)
        assert eye.looker.shown == []
        eye.slots = eye.frames
        eye.until(lambda: eye.scenes, 'a scene once they are there')


def test_it_starts_again_with_nothing_seen():
    eye = Eye(base=Turn(hz=100.0))
    eye.show()
    for _ in range(2):
        with eye:
            eye.until(lambda: eye.scenes, 'a scene')
        eye.scenes.clear()
    eye.thread.stop()
    assert len(eye.looker.shown) == 2


def test_its_thread_alone_yields_to_the_others():
    before = os.getpriority(os.PRIO_PROCESS, 0)
    found = []

    def run():
        lower_priority()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [min(19, before + NICE)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
