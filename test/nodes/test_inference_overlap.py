"""The inference thread where chunks overlap, on a policy that takes time and no processor."""

import threading
import time

import inference_world
import pytest
from fakes import FakePolicy
from inference_world import MS

from vla_trt_ros.datatypes import Reason
from vla_trt_ros.errors import BackendError, DeviceLost

pytestmark = pytest.mark.alone

ENCODE, DECODE = 0.03, 0.03  # seconds


class SlowPolicy(FakePolicy):
    """Encodes, then decodes; with two places the next one encodes meanwhile, as on two streams."""

    def __init__(self, places: int = 2, decode: float = DECODE) -> None:
        super().__init__()
        self.places, self.decode = places, decode
        self.encoded = self.decoded = 0.0
        self.most = self.open = 0
        self.result_faults: dict[int, Exception] = {}
        """By number of the submit."""
        self.ages_ms: list[float] = []

    def submit(self, observation, *, num_steps, noise=None):
        made = self.infer(observation, num_steps=num_steps)
        now = time.monotonic()
        self.ages_ms.append((time.time_ns() - observation.stamp_ns) / MS)
        self.encoded = max(now, self.encoded) + ENCODE
        self.decoded = max(self.encoded, self.decoded) + self.decode
        self.open += 1
        self.most = max(self.most, self.open)
        return Slow(self, self.decoded, made, self.result_faults.get(len(self.asked)))

    def wait_turn(self):
        time.sleep(max(0.0, self.encoded - time.monotonic()))


class Slow:
    def __init__(self, policy, done, made, fault):
        self._policy, self._done, self._made, self._fault = policy, done, made, fault

    def result(self):
        time.sleep(max(0.0, self._done - time.monotonic()))
        self._policy.open -= 1
        if self._fault is not None:
            raise self._fault
        return self._made


class World(inference_world.World):
    """With a `SlowPolicy`; ``times`` of results, and of states the reasons alone."""

    def __init__(self, **how) -> None:
        self.times = []
        super().__init__(SlowPolicy(**how))

    def take(self, result) -> None:
        self.times.append(time.monotonic())
        super().take(result)

    def hear(self, state) -> None:
        self.states.append(state.reason)

    def film(self, seconds: float, every: float = 0.004) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.feed()
            time.sleep(every)


@pytest.fixture
def world():
    made = World()
    made.thread.start()
    yield made
    made.thread.stop()


def counts(**how):
    made = World(**how)
    made.thread.start()
    made.film(1.2)
    made.thread.stop()
    return made


def test_more_chunks_than_one_after_the_other_in_order_and_of_new_frames():
    serial, overlapped = counts(places=1), counts(places=2)
    # 60 ms each in turn, 30 ms where the next one is encoded meanwhile.
    assert 12 <= len(serial.results) <= 20
    assert len(overlapped.results) > 1.5 * len(serial.results)
    assert (serial.policy.most, overlapped.policy.most) == (1, 2)
    ids = [r.chunk.chunk_id for r in overlapped.results]
    starts = [r.chunk.start_ns for r in overlapped.results]
    assert ids == list(range(len(ids)))
    assert starts == sorted(set(starts))
    # No frame waits for a turn: while one is awaited, newer frames take its place.
    assert sorted(overlapped.policy.ages_ms)[len(ids) // 2] < 15


def test_a_chunk_comes_when_it_is_done_though_no_frame_follows(world):
    begin = time.monotonic()
    world.feed()
    world.until(lambda: world.results)
    assert 0.9 * (ENCODE + DECODE) < world.times[0] - begin < ENCODE + DECODE + 0.05


def test_a_chunk_comes_when_it_is_done_though_the_next_is_in_the_making():
    made = World(decode=0.1)
    made.thread.start()
    made.feed()
    made.until(lambda: len(made.policy.asked) == 1)
    first_done = made.policy.decoded
    time.sleep(ENCODE + 0.005)
    made.feed()
    made.until(lambda: len(made.policy.asked) == 2)
    assert not made.results
    made.until(lambda: made.results)
    assert abs(made.times[0] - first_done) < 0.05
    made.thread.stop()
    assert [r.chunk.chunk_id for r in made.results] == [0, 1]


def test_never_more_than_there_are_places():
    made = World(decode=0.12)
    made.thread.start()
    made.film(0.6)
    made.thread.stop()
    assert made.policy.most == 2
    assert len(made.results) == len(made.policy.asked)


@pytest.mark.parametrize('fails', ['submit', 'result'])
def test_an_error_of_one_leaves_the_other(world, fails):
    fault = BackendError('the steps failed.')
    if fails == 'result':
        world.policy.result_faults[1] = fault
        world.feed()
        world.until(lambda: len(world.policy.asked) == 1)
        time.sleep(ENCODE)
        world.feed()
    else:
        world.feed()
        world.until(lambda: len(world.policy.asked) == 1)
        time.sleep(ENCODE)
        world.policy.fault = fault
        world.feed()
        world.until(lambda: len(world.policy.asked) == 2)
        world.policy.fault = None
    world.until(lambda: world.results)
    assert world.thread.failures == 1
    assert Reason.POLICY_ERROR in world.states
    world.feed()
    world.until(lambda: world.states[-1] is Reason.NONE)
    assert [r.chunk.chunk_id for r in world.results] == list(range(len(world.results)))


def test_stale_frames_hold_and_a_chunk_begun_before_does_not_hide_it():
    made = World(decode=0.15)
    made.thread.start()
    made.feed()
    made.until(lambda: len(made.policy.asked) == 1)
    time.sleep(ENCODE + 0.01)
    made.feed(age_ms=-20.0)  # newer than the first, so that the slot takes it
    made.until(lambda: len(made.policy.asked) == 2)
    made.thread._now_ns = lambda: time.time_ns() + 10_000 * MS
    made.until(lambda: Reason.STALE_IMAGE in made.states)
    made.until(lambda: len(made.results) == 2)
    assert made.states.count(Reason.STALE_IMAGE) == 1
    assert made.states[-1] is Reason.STALE_IMAGE
    assert len(made.policy.asked) == 2  # nothing was begun on stale frames
    made.thread.stop()


def test_stopping_lets_both_chunks_come_and_ends_both_threads():
    made = World(decode=0.1)
    made.thread.start()
    made.feed()
    made.until(lambda: len(made.policy.asked) == 1)
    time.sleep(ENCODE + 0.005)
    made.feed()
    made.until(lambda: len(made.policy.asked) == 2)
    made.thread.stop()
    assert len(made.results) == 2
    assert not {'inference', 'results'} & {t.name for t in threading.enumerate()}
    # And again, as a second activation does.
    made.pipeline.reset()
    made.thread.start()
    made.feed()
    made.until(lambda: len(made.results) == 3)
    made.thread.stop()
    assert made.results[-1].chunk.chunk_id == 0


def test_a_lost_gpu_is_said_and_nothing_runs_hot(world, monkeypatch):
    lost = DeviceLost('restart the node.')
    asked = []

    def wait_turn():
        asked.append(time.monotonic())
        raise lost

    world.policy.result_faults[1] = lost
    world.feed()
    world.until(lambda: len(world.policy.asked) == 1)
    monkeypatch.setattr(world.policy, 'wait_turn', wait_turn)
    world.until(lambda: world.pipeline.lost)
    world.until(lambda: world.thread.state.reason is Reason.POLICY_ERROR)
    asked.clear()
    time.sleep(0.35)
    assert len(asked) <= 5
    assert not world.results
