"""From events to a part on disk, with a made-up policy."""

import gc
import weakref
from collections import deque

import pytest
from fakes import rgb_frame
from recordings import MS, T0, Event, command, pair, pipeline

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.replay.parts import read_part
from vla_trt_ros.replay.run import Manner, run_part

MANNER = Manner(prompt='reach the goal')
CONDITIONS = {'bag': 'b', 'num_steps': 3, 'seed': 7}


class FakeBag:
    """What run_part asks of a BagReader."""

    def __init__(self, events, kinds=('camera', 'joints', 'command')):
        self._events, self.kinds, self.paths = events, frozenset(kinds), ('bag',)

    def events(self, *kinds):
        return (e for e in self._events if not kinds or e.kind in kinds)

    def notes(self):
        return ['a note.']


def steps(count, begin=T0, hand_x=0.1):
    for k in range(count):
        at = begin + k * 50 * MS
        yield from pair(at)
        # What FakePolicy does from there: a centimetre a row.
        yield Event(at + MS, 'command', 'command', command(at + MS, hand_x))


def judged(tmp_path, events):
    made = pipeline()
    made.policy.asked = deque(maxlen=2)  # it would keep every picture
    run_part(FakeBag(events), made, MANNER, tmp_path / 'p', CONDITIONS)
    part = read_part(tmp_path / 'p', CONDITIONS)
    return part, made.policy


def test_every_frame_is_judged_against_what_was_done(tmp_path):
    part, policy = judged(tmp_path, list(steps(30)))
    assert len(part.table.values) == 30
    assert policy.seeds[-1] == 7
    assert {n for _, n in policy.asked} == {3}
    # Row k is 0.01 (k + 1) m ahead of the 0.1 that was commanded all the time.
    assert abs(part.table['mae_h1.hand_x'] - 0.01).max() < 1e-6
    assert abs(part.table['mae_h5.hand_x'][:20] - 0.03).max() < 1e-6
    assert part.facts['counts']['ticks'] == 30
    assert part.facts['notes'] == ['a note.']
    assert len(part.facts['moments']) == 1  # within two seconds


def test_a_clock_that_begins_anew_is_a_new_run_and_nothing_waits_for_it(tmp_path):
    events = [*steps(20), *steps(20, begin=T0 - 3_600_000 * MS, hand_x=0.2)]
    part, _ = judged(tmp_path, events)
    t, off = part.table['t'], part.table['mae_h1.hand_x']
    assert len(t) >= 34  # four pairs of each camera may be late ones, until five say otherwise
    assert (t[:20] < 1.0).all()
    assert (t[20:] < -3590.0).all()
    assert set(part.table['block'] // 1000) == {1.0, 2.0}
    assert abs(off[:19] - 0.01).max() < 1e-6
    assert abs(off[25:] - 0.09).max() < 1e-6


def test_frames_are_let_go_when_their_rows_are_over(tmp_path):
    alive = []

    def watched():
        for k, event in enumerate(steps(200)):
            if event.kind == 'camera':
                frame = rgb_frame(event.payload.stamp_ns)
                alive.append(weakref.ref(frame.data))
                event = Event(event.time_ns, 'camera', event.name, frame)
            yield event
            if k == 700:
                gc.collect()
                held = sum(ref() is not None for ref in alive)
                assert held < 2 * (11 + 10 + 3)  # rows to come, worst moments, slots

    judged(tmp_path, watched())
    assert len(alive) == 400


def test_nothing_to_hold_it_against_is_said(tmp_path):
    bag = FakeBag(list(steps(3)), kinds=('camera',))
    with pytest.raises(ConfigError, match='holds nothing that was done'):
        run_part(bag, pipeline(), MANNER, tmp_path / 'p', CONDITIONS)
    bag = FakeBag(pair(T0, arrived_ns=T0 + 900 * MS))
    with pytest.raises(ConfigError, match='not one of 1 frame pairs became a chunk.*900 ms old'):
        run_part(bag, pipeline(), MANNER, tmp_path / 'p', CONDITIONS)
    assert not (tmp_path / 'p' / 'part.json').exists()
