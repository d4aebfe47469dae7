"""A recording cut into control steps: what was seen, felt and done at each."""

import numpy as np
import pytest

pytest.importorskip('rosbags', reason="pip install 'vla_trt_ros[bags]'")

from bag_files import (
    BASE,
    BEGIN_NS,
    COMMAND,
    IMAGE,
    JOINTS,
    ROBOT,
    STATES,
    STEP_NS,
    TEXT,
    WRIST,
    Script,
    image,
    make,
    position_at,
    states,
)

from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.conversion.moments import Moments
from vla_trt_ros.datatypes import NS

VIEWS = ('base', 'wrist')


def moments_of(path, source='command', views=VIEWS):
    need = (*views, 'joints')
    moments = Moments(open_bag([path], ROBOT, need=need), ROBOT, source, views)
    return list(moments), moments.counts.counts


@pytest.mark.parametrize('views', [VIEWS, ()], ids=['pictures', 'numbers alone'])
def test_every_step_of_a_regular_recording(tmp_path, views):
    found, counts = moments_of(Script().steps(20).write(tmp_path / 'bag'), views=views)
    assert [m.stamp_ns for m in found] == [BEGIN_NS + k * STEP_NS for k in range(20)]
    for k, moment in enumerate(found):
        np.testing.assert_allclose(moment.state, position_at(k), rtol=1e-6)
        np.testing.assert_allclose(moment.action, position_at(k + 1), rtol=1e-6)
        assert set(moment.frames) == set(views)
        if views:
            assert moment.frames['wrist'].data[-1] == 10 * k + 5
    assert not counts


def test_without_commands_the_action_is_where_the_joints_went(tmp_path):
    path = Script().steps(20, skip=(COMMAND,)).write(tmp_path / 'bag')
    found, counts = moments_of(path, 'joints')
    assert len(found) == 19
    assert counts == {'no_action': 1}  # nobody knows where they went after the end
    for k, moment in enumerate(found):
        np.testing.assert_allclose(moment.action, position_at(k + 1), rtol=1e-6)


def test_cameras_that_run_free_give_the_newest_picture_of_each(tmp_path):
    script = Script()
    for k in range(100):  # joint states at 100 Hz
        ns = BEGIN_NS + k * NS // 100
        script.add(JOINTS, STATES, ns, states(ns, [0.1, 0.5, k / 100, 1.0]))
    for topic, rate, late in ((BASE, 30, 0), (WRIST, 13, 7_000_000)):
        for k in range(rate):
            ns = BEGIN_NS + k * NS // rate + late
            script.add(topic, IMAGE, ns + 1_000_000, image(ns, k))
    found, _ = moments_of(script.write(tmp_path / 'bag'), 'joints')
    assert len(found) >= 17
    begin = BEGIN_NS + 7_000_000
    for i, moment in enumerate(found):
        at = moment.stamp_ns
        assert at == begin + i * STEP_NS
        for view, rate, late in (('base', 30, 0), ('wrist', 13, 7_000_000)):
            newest = max(ns for k in range(rate) if (ns := BEGIN_NS + k * NS // rate + late) <= at)
            assert moment.frames[view].stamp_ns == newest
        assert moment.state[2] == pytest.approx((at - BEGIN_NS) / NS, abs=1e-6)


def test_silence_and_a_new_prompt_end_an_episode(tmp_path):
    script = Script()
    script.add('policy/prompt', TEXT, BEGIN_NS - 5, make(TEXT, 'reach'))
    script.steps(10)
    script.add('policy/prompt', TEXT, BEGIN_NS + 10 * STEP_NS - 5, make(TEXT, 'push'))
    script.steps(10, begin_ns=BEGIN_NS + 10 * STEP_NS)
    script.steps(10, begin_ns=BEGIN_NS + 20 * STEP_NS + 2 * NS)
    found, _ = moments_of(script.write(tmp_path / 'bag'))
    episodes = [(m.episode, m.prompt) for m in found]
    assert sorted(set(episodes)) == [(0, 'reach'), (1, 'push'), (2, 'push')]
    assert [episodes.count(e) for e in sorted(set(episodes))] == [10, 10, 10]


def test_a_camera_that_stops_gives_no_steps(tmp_path):
    script = Script().steps(10).steps(10, begin_ns=BEGIN_NS + 10 * STEP_NS, skip=(WRIST,))
    found, counts = moments_of(script.write(tmp_path / 'bag'))
    stale = 10 - ROBOT.cameras['wrist'].max_age_ms * 1e6 // STEP_NS
    assert len(found) == 20 - stale
    assert counts == {'stale_image': stale}


def test_bags_are_episodes_of_their_own(tmp_path):
    paths = [Script().steps(5).write(tmp_path / name) for name in 'ab']
    moments = Moments(open_bag(paths, ROBOT), ROBOT, 'command', VIEWS)
    assert [m.episode for m in moments] == [0] * 5 + [1] * 5
