"""Each camera at its own rate: who is next, and what is missed when a look takes long."""

import pytest

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.perception.choice import Rota, Turn, turns_of

VIEWS = ('base', 'wrist')


def test_rates_in_words():
    assert turns_of('all=5', VIEWS) == {'base': Turn(hz=5.0), 'wrist': Turn(hz=5.0)}
    assert turns_of('all=/2,base=1', VIEWS) == {'base': Turn(hz=1.0), 'wrist': Turn(every=2)}
    assert turns_of(' base=2.5, wrist=/3', VIEWS) == {
        'base': Turn(hz=2.5),
        'wrist': Turn(every=3),
    }
    assert turns_of('wrist=1', VIEWS) == {'wrist': Turn(hz=1.0)}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('top=5', "no camera 'top'; there are base, wrist, or all"),
        ('base=0', "rate '0' is neither"),
        ('base=fast', "rate 'fast' is neither"),
        ('all=/0', "rate '/0' is neither"),
        ('base=-3', "rate '-3' is neither"),
        ('all=nan', "rate 'nan' is neither"),
        ('5', "no camera '5'"),
        ('', 'rates is empty'),
    ],
)
def test_wrong_rates_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        turns_of(text, VIEWS)


def test_turns_come_at_their_rates():
    rota = Rota({'base': Turn(hz=10.0), 'wrist': Turn(hz=5.0)}, 0.0)
    taken = {'base': 0, 'wrist': 0}
    for k in range(101):
        now = k / 100
        while (view := rota.next(now)) is not None:
            taken[view] += 1
            assert rota.done(view, now) == 0
    assert taken == {'base': 11, 'wrist': 6}


def test_slow_look_misses_turns_and_keeps_the_beat():
    rota = Rota({'base': Turn(hz=10.0)}, 0.0)
    assert rota.next(0.0) == 'base'
    assert rota.done('base', 0.35) == 3
    assert rota.next(0.36) is None
    assert rota.wait(0.36) == pytest.approx(0.04)
    assert rota.next(0.41) == 'base'


def test_camera_without_a_new_frame_lets_the_other_one_go_first():
    rota = Rota({'base': Turn(hz=10.0), 'wrist': Turn(hz=10.0)}, 0.0)
    first = rota.next(0.0)
    rota.again(first, 0.0, 0.005)
    assert rota.next(0.0) not in (first, None)
    # Waiting for a frame is not a turn missed.
    assert rota.next(0.01) is not None
    rota.done(first, 0.006)
    assert rota.done(rota.next(0.2), 0.2) >= 0
