"""Something in view holds the arm or slows it; a watch that sees nothing at all holds it too."""

from types import SimpleNamespace

import numpy as np
import pytest
from fakes import header
from gate_world import MS, T0, World, robot

from vla_trt_ros.actions.gate import CommandGate
from vla_trt_ros.actions.watch import EVERYWHERE, Region, Watch, WatchConfig, cameras_of
from vla_trt_ros.datatypes import CommandKind, LabelledBox, Reason, State
from vla_trt_ros.errors import BadDetections, ConfigError
from vla_trt_ros.messages import boxes_from_msg

EVERY = 100 * MS


def box(label='person', score=0.9, at=(10.0, 10.0, 20.0, 20.0)):
    return LabelledBox(label, score, *at)


class Watched(World):
    """A world whose camera is looked at every 100 ms; ``view`` is what it shows, None: nobody
    looks.
    """

    def __init__(self, config=None, *, kind='trajectory', **watch):
        super().__init__(config or robot(), kind=kind)
        rule = {'cameras': {'base': EVERYWHERE}, 'hold_on': ('person',), 'clear_s': 0.5, **watch}
        self.gate = CommandGate(
            self.gate.robot,
            kind=CommandKind(kind),
            dry_run=False,
            watch=Watch(WatchConfig(**rule)),
        )
        self.view = []
        self.policy = forward
        self.speeds = []

    def tick(self):
        if self.view is not None and (self.now_ns - T0) % EVERY == 0:
            self.gate.offer_detections('base', self.now_ns - 50 * MS, self.view, self.now_ns)
        self.speeds.append(float(np.abs(self.velocity).max()))
        return super().tick()


def forward(t):
    """The shoulder at 0.4 rad/s, to and fro, made for the moment it is asked for."""
    due = t + 0.05 * np.arange(1, 11)
    return np.stack([0.4 * np.abs((due % 4.0) - 2.0) - 0.4, np.zeros(10)], axis=1)


def started(**given):
    world = Watched(**given)
    status = world.run(0.5)
    assert (status.state, status.reason) == (State.RUNNING, Reason.NONE)
    return world


def test_person_holds_within_one_period_and_the_arm_goes_on_when_clear():
    world = started()
    world.view = [box()]
    # Detections come every 100 ms, so one tick after the next of them at the latest.
    status = world.run(0.11)
    assert (status.state, status.reason) == (State.HOLDING, Reason.PERCEPTION_HOLD)
    assert 'person in view of camera base (0.90)' in status.text
    world.run(0.3)
    here = world.position.copy()
    # Longer than stop_after: somebody may stay, and nobody has to call ~/reset for it.
    status = world.run(3.0)
    assert status.state is State.HOLDING
    assert np.array_equal(world.position, here)
    world.view = []
    assert world.run(0.4).state is State.HOLDING
    status = world.run(0.4)
    assert (status.state, status.reason) == (State.RUNNING, Reason.NONE)


def test_no_detections_ever_no_motion_ever():
    world = Watched()
    world.view = None
    status = world.run(1.0)
    assert (status.state, status.reason) == (State.WAITING, Reason.STALE_DETECTIONS)
    assert 'no detections of camera base yet' in status.text
    assert world.commands == []


def test_detections_that_stop_hold_and_then_stop():
    world = started(max_age_ms=300.0)
    world.view = None
    status = world.run(0.4)
    assert (status.state, status.reason) == (State.HOLDING, Reason.STALE_DETECTIONS)
    assert 'is the perception node running?' in status.text
    status = world.run(2.1)
    assert (status.state, status.reason) == (State.STOPPED, Reason.STALE_DETECTIONS)
    world.view = []
    assert world.run(0.5).state is State.STOPPED


def test_detections_that_come_back_in_time_end_the_hold():
    world = started(max_age_ms=300.0)
    world.view = None
    assert world.run(0.5).state is State.HOLDING
    world.view = []
    assert world.run(0.5).state is State.RUNNING


def test_frozen_camera_is_stale_although_messages_come():
    world = started()
    stamp = world.now_ns - 50 * MS
    world.view = None
    for _ in range(10):
        world.gate.offer_detections('base', stamp, [], world.now_ns)
        status = world.run(0.1)
    assert (status.state, status.reason) == (State.HOLDING, Reason.STALE_DETECTIONS)
    assert status.counts['detections_not_rising'] >= 1


def test_each_camera_must_be_seen():
    world = Watched(cameras={'base': EVERYWHERE, 'wrist': EVERYWHERE})
    status = world.run(0.5)
    assert (status.state, status.reason) == (State.WAITING, Reason.STALE_DETECTIONS)
    assert 'camera wrist' in status.text


@pytest.mark.parametrize(
    ('view', 'held'),
    [
        ([box('cup')], False),
        ([box(score=0.49)], False),
        ([box(score=0.5)], True),
        ([box('cup'), box()], True),
        ([box(at=(0, 0, 99, 99))], False),
        ([box(at=(0, 0, 101, 50))], True),
        ([box(at=(200, 0, 210, 10))], False),
    ],
)
def test_label_score_and_region_decide(view, held):
    world = started(
        cameras={'base': Region(100, 0, 200, 100)} if view[0].left != 10 else {'base': EVERYWHERE}
    )
    world.view = view
    status = world.run(0.2)
    assert (status.state is State.HOLDING) is held


def test_slow_keeps_a_share_of_the_speed_and_says_so():
    world = started(hold_on=(), slow_on=('person',), slow_factor=0.1)
    world.run(1.0)
    assert max(world.speeds[-50:]) == pytest.approx(0.4, abs=0.02)
    world.view = [box()]
    world.run(0.5)
    status = world.run(0.5)
    assert (status.state, status.reason) == (State.RUNNING, Reason.PERCEPTION_SLOW)
    # The shoulder may do 2 rad/s: a tenth of it is half of what the policy wants.
    assert 0.1 < max(world.speeds[-40:]) <= 0.2 + 1e-6
    world.view = []
    world.run(0.5)
    status = world.run(1.0)
    assert (status.state, status.reason) == (State.RUNNING, Reason.NONE)


@pytest.mark.parametrize('kind', ['trajectory', 'position'])
def test_slowing_down_is_no_jerk(kind):
    world = started(kind=kind, hold_on=(), slow_on=('person',), slow_factor=0.1)
    world.run(0.7)
    world.view, begin = [box()], len(world.speeds)
    world.run(0.6)
    # The policy turns round later than this.
    change = np.abs(np.diff(world.speeds[begin:]))
    # From 0.4 to 0.2 rad/s over a row of 50 ms or longer, looked at every 10 ms.
    # A position is sent for a period ahead, so its controller sees the change at once.
    assert change.max() < (0.1 if kind == 'trajectory' else 0.2)


@pytest.mark.parametrize('kind', ['trajectory', 'position'])
@pytest.mark.parametrize('seed', range(4))
def test_wild_motions_that_slow_down_and_speed_up_keep_every_limit(seed, kind):
    draw = np.random.default_rng(seed)
    world = started(kind=kind, hold_on=(), slow_on=('person',), slow_factor=0.05, clear_s=0.1)
    world.policy = lambda t: draw.uniform(-3.0, 3.0, (1, 2)) + draw.normal(0.0, 0.3, (10, 2))
    for _ in range(12):
        world.view = [box()] if draw.random() < 0.5 else []
        world.run(0.3)
    trace = np.array(world.trace)
    assert np.all(np.abs(trace) <= np.array([1.0, 2.0]) + 1e-9)
    assert np.all(np.abs(np.diff(trace, axis=0)) <= np.array([2.0, 1.0]) * 0.01 + 1e-9)


def test_both_lists_may_be_in_view():
    world = started(slow_on=('dog',))
    world.view = [box('dog')]
    assert world.run(0.2).reason is Reason.PERCEPTION_SLOW
    world.view = [box('dog'), box('person')]
    status = world.run(0.2)
    assert (status.state, status.reason) == (State.HOLDING, Reason.PERCEPTION_HOLD)


def test_clock_that_jumps_back_forgets_what_was_seen():
    world = started()
    world.view = None
    world.now_ns -= 10_000 * MS
    world.tick()
    status = world.run(0.2)
    assert status.reason in (Reason.STALE_DETECTIONS, Reason.NO_STATE)
    world.view = []
    assert world.run(0.5).state is State.RUNNING


def test_stamps_of_the_future_are_not_believed():
    watch = Watch(WatchConfig({'base': EVERYWHERE}, hold_on=('person',)))
    assert watch.offer('base', T0 + 10**9, [], T0) == 'detections_from_future'
    assert watch.freshness(T0).reason is Reason.STALE_DETECTIONS
    assert watch.offer('base', T0, [], T0) == ''
    assert watch.freshness(T0).ok


def test_label_that_no_detector_knows_holds_and_says_which_there_are():
    watch = Watch(WatchConfig({'base': EVERYWHERE}, hold_on=('persn',)))
    watch.offer('base', T0, [], T0)
    assert watch.freshness(T0).ok
    watch.offer_labels(['person', 'cup'])
    found = watch.freshness(T0)
    assert found.reason is Reason.STALE_DETECTIONS
    assert "no detector knows label 'persn', only person, cup" in found.text
    watch.offer_labels(['persn'])
    assert watch.freshness(T0).ok


def test_other_cameras_do_not_count():
    watch = Watch(WatchConfig({'base': EVERYWHERE}, hold_on=('person',)))
    watch.offer('base', T0, [], T0)
    assert watch.offer('wrist', T0, [box()], T0) == ''
    assert watch.freshness(T0).ok


def test_estop_stays_above_all():
    world = started()
    world.view = [box()]
    world.run(0.2)
    world.gate.estop(True, world.now_ns)
    world.view = []
    assert world.run(1.0).state is State.ESTOPPED


def test_cameras_in_words():
    known = ('base', 'wrist')
    assert cameras_of('', known) == {'base': EVERYWHERE, 'wrist': EVERYWHERE}
    assert cameras_of('wrist, base=1:2:3:4.5', known) == {
        'wrist': EVERYWHERE,
        'base': Region(1, 2, 3, 4.5),
    }


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('top', "no camera 'top'; there are base, wrist"),
        ('base=1:2:3', "'1:2:3' is not left:upper:right:lower"),
        ('base=a:b:c:d', "'a:b:c:d' is not left:upper:right:lower"),
        ('base=5:0:5:9', 'region 5:0:5:9 is empty'),
        ('base=nan:0:5:9', 'is empty'),
    ],
)
def test_wrong_cameras_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        cameras_of(text, ('base', 'wrist'))


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'hold_on': ()}, 'needs a label'),
        ({'cameras': {}}, 'at least one camera'),
        ({'min_score': 1.5}, r'watch_score 1\.5 is outside 0 to 1'),
        ({'max_age_ms': 0.0}, 'max_detection_age_ms 0.0 must be above 0'),
        ({'clear_s': -1.0}, 'watch_clear -1.0 s is negative'),
        ({'slow_factor': 0.0}, 'slow_factor 0.0 is outside 0 to 1'),
    ],
)
def test_wrong_watch_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        WatchConfig(**{'cameras': {'base': EVERYWHERE}, 'hold_on': ('person',), **given})


def message(*scores, stamp_ns=T0, x=50.0):
    results = [
        SimpleNamespace(hypothesis=SimpleNamespace(class_id=label, score=score))
        for label, score in scores
    ]
    centre = SimpleNamespace(position=SimpleNamespace(x=x, y=40.0))
    bbox = SimpleNamespace(center=centre, size_x=20.0, size_y=10.0)
    return SimpleNamespace(
        header=header(stamp_ns), detections=[SimpleNamespace(results=results, bbox=bbox)]
    )


def test_every_label_of_a_detection_is_a_box():
    stamp, boxes = boxes_from_msg(message(('person', 0.8), ('child', 0.6)))
    assert stamp == T0
    assert boxes == (
        LabelledBox('person', 0.8, 40.0, 35.0, 60.0, 45.0),
        LabelledBox('child', 0.6, 40.0, 35.0, 60.0, 45.0),
    )


def test_thousands_of_detections_hold_as_one_does():
    crowd = message(('cup', 0.9))
    crowd.detections = crowd.detections * 5000 + message(('person', 0.9)).detections
    stamp, boxes = boxes_from_msg(crowd)
    assert len(boxes) == 5001
    watch = Watch(WatchConfig({'base': EVERYWHERE}, hold_on=('person',)))
    watch.offer('base', stamp, boxes, T0)
    assert watch.freshness(T0).reason is Reason.PERCEPTION_HOLD


@pytest.mark.parametrize('bad', [{'x': float('nan')}, {'x': float('inf')}])
def test_nan_in_detections_is_refused(bad):
    with pytest.raises(BadDetections, match="detection of 'person' holds NaN or Inf"):
        boxes_from_msg(message(('person', 0.8), **bad))


def test_nan_score_and_missing_stamp_are_refused():
    with pytest.raises(BadDetections, match='NaN or Inf'):
        boxes_from_msg(message(('person', float('nan'))))
    with pytest.raises(BadDetections, match='header.stamp is zero'):
        boxes_from_msg(message(('person', 0.5), stamp_ns=0))


def test_refused_detections_are_counted_and_hold_in_the_end():
    world = started(max_age_ms=200.0)
    world.view = None
    for _ in range(4):
        world.gate.refuse_detections(world.now_ns)
        status = world.run(0.1)
    assert (status.state, status.reason) == (State.HOLDING, Reason.STALE_DETECTIONS)
    assert status.counts['detections_bad'] == 4
