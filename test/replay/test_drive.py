"""Which frames become chunks, on both clocks, and by the node's own rules."""

import threading
import time
from itertools import pairwise

import pytest
from fakes import FakePolicy, rgb_frame
from recordings import MS, T0, Event, pair, pairs, pipeline

from vla_trt_ros.datatypes import NS, ChunkFlag
from vla_trt_ros.errors import BadImage, BadState
from vla_trt_ros.nodes.inference import InferenceThread
from vla_trt_ros.replay.drive import Drive, constant, measured


def ticks(drive, events):
    return [tick for _, tick in drive.run(iter(events)) if tick is not None]


def used(found):
    return [(t.result.chunk.observation_ns - T0) // MS for t in found]


def test_fast_clock_judges_every_pair_as_if_it_took_no_time():
    drive = Drive(pipeline())
    found = ticks(drive, pairs(5, every_ms=10))
    assert used(found) == [0, 10, 20, 30, 40]
    assert [t.index for t in found] == [0, 1, 2, 3, 4]
    assert all(t.ready_ns == t.result.chunk.start_ns == t.now_ns for t in found)
    assert drive.counts['pairs'] == drive.counts['ticks'] == 5


def test_pair_is_complete_with_the_slower_camera():
    events = [*pair(T0), Event(T0 + 10 * MS, 'camera', 'base', rgb_frame(T0 + 10 * MS))]
    events += [Event(T0 + 20 * MS, 'camera', 'base', rgb_frame(T0 + 20 * MS))]
    events += [Event(T0 + 21 * MS, 'camera', 'wrist', rgb_frame(T0 + 18 * MS))]
    made = pipeline()
    assert used(ticks(Drive(made), events)) == [0, 18]
    assert made.frames.stats()['base'].dropped == 1


def test_every_third_pair():
    drive = Drive(pipeline(), every=3)
    assert used(ticks(drive, pairs(7))) == [0, 150, 300]
    assert drive.counts['skipped'] == 4


def test_real_clock_takes_the_newest_when_inference_ends_and_drops_the_rest():
    made = pipeline()
    drive = Drive(made, latency=constant(120))
    found = ticks(drive, pairs(10))
    # 0 to 120, the newest then is 100; to 240: 200; to 360: 350; the last waits no longer.
    assert used(found) == [0, 100, 200, 350, 450]
    assert [(t.now_ns - T0) // MS for t in found] == [0, 120, 240, 360, 480]
    assert [(t.ready_ns - t.now_ns) // MS for t in found] == [120] * 5
    assert all(t.result.chunk.flags & ChunkFlag.LATE for t in found)
    assert drive.counts['late'] == 5
    assert made.frames.stats()['base'].dropped == 10 - 5
    assert {t.result.timing.inference_ms for t in found} == {120.0}


def test_real_clock_keeps_the_rate_of_the_policy_file():
    found = ticks(Drive(pipeline(max_rate=10.0), latency=constant(1)), pairs(20, every_ms=20))
    begun = [t.now_ns for t in found][2:]  # one is saved up
    assert min(b - a for a, b in pairwise(begun)) >= 99 * MS


def test_measured_latency_is_the_time_of_the_tick():
    result = ticks(Drive(pipeline()), pairs(1))[0].result
    assert measured(result) == round(result.timing.inference_ms * 1e6)


def test_refused_pairs_are_counted_with_their_reason_and_say_why():
    events = pair(T0, arrived_ns=T0 + 400 * MS) + pair(T0 + 500 * MS)
    drive = Drive(pipeline())
    assert used(ticks(drive, events)) == [500]
    assert drive.counts['refused_STALE_IMAGE'] == 1
    assert 'max_age_ms 250' in drive.first_refusal


def test_no_prompt_no_chunk_until_the_recording_tells_one():
    events = pairs(2)
    events.insert(3, Event(T0 + MS, 'prompt', 'prompt', 'open the drawer'))
    found = ticks(Drive(pipeline(prompt='')), events)
    assert used(found) == [50]
    assert found[0].prompt == 'open the drawer'


def test_the_prompt_of_another_recording_is_not_used():
    drive = Drive(pipeline(), prompted=False)
    events = pairs(2)
    events.insert(3, Event(T0 + MS, 'prompt', 'prompt', 'open the drawer'))
    assert used(ticks(drive, events)) == [50]
    assert drive.counts['refused_NO_PROMPT'] == 1


def test_a_prompt_of_its_own_is_not_overruled():
    events = [Event(T0 - MS, 'prompt', 'prompt', 'open the drawer'), *pairs(1)]
    found = ticks(Drive(pipeline(), follow_prompts=False), events)
    assert found[0].prompt == 'reach the goal'


def test_what_cannot_be_used_is_counted_as_the_node_does():
    made = pipeline()
    bad = [
        Event(T0 + MS, 'camera', 'base', BadImage('8 bytes are no picture.')),
        Event(T0 + MS, 'joints', 'joints', BadState('2 names and 3 positions.')),
        Event(T0 + MS, 'prompt', 'prompt', '  '),
        Event(T0 + MS, 'camera', 'gripper_cam', rgb_frame(T0 + MS)),
    ]
    drive = Drive(made)
    assert used(ticks(drive, pairs(1) + bad + pair(T0 + 50 * MS))) == [0, 50]
    assert made.frames.stats()['base'].malformed == 1
    assert made.joints.counters['state_rejected'] == 1
    assert drive.counts['prompt_refused'] == 1


def test_a_tick_that_fails_is_counted_and_the_next_one_runs():
    policy = FakePolicy()
    policy.fault = BadImage('a JPEG that is none.')
    made = pipeline(policy=policy)
    drive = Drive(made)
    assert drive.feed(pairs(1)[0]) is None
    found = ticks(drive, pairs(1)[1:])
    policy.fault = None
    assert not found
    assert used(ticks(drive, pair(T0 + 50 * MS))) == [50]
    assert drive.counts['failed_BAD_IMAGE'] == 1


class SlowPolicy(FakePolicy):
    def infer(self, observation, *, num_steps, noise=None):
        time.sleep(0.13)
        return super().infer(observation, num_steps=num_steps)


def live(events, until):
    """The same events into the node's own thread, each when it was recorded."""
    made = pipeline(policy=SlowPolicy())
    begin = time.monotonic()
    results = []
    thread = InferenceThread(
        made,
        lambda: T0 + round((time.monotonic() - begin) * NS),
        results.append,
        lambda state: None,
    )
    thread.start()
    for event in events:
        time.sleep(max(0.0, (event.time_ns - T0) / NS - (time.monotonic() - begin)))
        if event.kind == 'camera':
            made.offer_image(event.name, event.payload)
        else:
            made.offer_joints(event.payload)
    threading.Event().wait(until)
    thread.stop()
    return [(r.chunk.observation_ns - T0) // MS for r in results]


@pytest.mark.ros
def test_real_clock_uses_the_frames_that_the_nodes_thread_uses():
    pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
    events = pairs(12, every_ms=100)
    expected = used(ticks(Drive(pipeline(), latency=constant(131)), events))
    # A machine that is busy may be late for a frame; it is not late for it three times.
    found = [live(events, 0.3)]
    while found[-1] != expected and len(found) < 3:
        found.append(live(events, 0.3))
    assert expected in found
    assert 12 > len(expected) > 5
