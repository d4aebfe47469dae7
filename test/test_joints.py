"""Joint history: interpolation to the exposure, age, and clocks that misbehave."""

import numpy as np
from fakes import joints

from vla_trt_ros.datatypes import Reason
from vla_trt_ros.joints import JointHistory

MS = 1_000_000
T0 = 1_000_000 * MS


def history(*stamps_and_x: tuple[int, float]) -> JointHistory:
    kept = JointHistory('joint_states', max_age_ms=100)
    for stamp, x in stamps_and_x:
        assert kept.offer(joints(stamp, a=x, b=-x))
    return kept


def test_between_two_samples_is_linear():
    sample = history((T0, 0.0), (T0 + 10 * MS, 1.0)).at(T0 + 4 * MS)
    assert sample is not None
    np.testing.assert_allclose(sample.positions, [0.4, -0.4])
    assert sample.stamp_ns == T0 + 4 * MS


def test_before_on_and_after():
    kept = history((T0, 0.0), (T0 + 10 * MS, 1.0))
    for stamp, x in ((T0 - MS, 0.0), (T0, 0.0), (T0 + 10 * MS, 1.0), (T0 + 90 * MS, 1.0)):
        sample = kept.at(stamp)
        assert sample is not None
        assert sample.positions[0] == x


def test_empty():
    kept = history()
    assert kept.at(T0) is None
    assert kept.freshness(T0).reason is Reason.NO_STATE


def test_age():
    kept = history((T0, 0.0))
    assert kept.freshness(T0 + 100 * MS).ok
    found = kept.freshness(T0 + 120 * MS)
    assert found.reason is Reason.STALE_STATE
    assert '120 ms old (max_state_age_ms 100)' in found.text


def test_future_is_a_clock_fault():
    assert history((T0 + 200 * MS, 0.0)).freshness(T0).reason is Reason.CLOCK


def test_repeated_stamp_is_counted_not_kept():
    kept = history((T0, 0.0))
    assert not kept.offer(joints(T0, a=5.0, b=5.0))
    assert kept.counters['state_not_rising'] == 1
    assert kept.freshness(T0 + 150 * MS).reason is Reason.STALE_STATE


def test_clock_restart_starts_a_new_history():
    kept = history((T0 + 10**12, 7.0))
    assert kept.offer(joints(T0, a=1.0, b=1.0))
    sample = kept.at(T0 - MS)
    assert sample is not None
    assert sample.positions[0] == 1.0


def test_rejected_sample_is_told_until_a_good_one_comes():
    kept = history((T0, 0.0))
    kept.reject('joint a is NaN')
    assert kept.freshness(T0).reason is Reason.BAD_STATE
    kept.offer(joints(T0 + MS, a=1.0, b=1.0))
    assert kept.freshness(T0 + MS).ok


def test_changed_joint_names_are_not_mixed():
    kept = history((T0, 0.0))
    kept.offer(joints(T0 + 10 * MS, b=2.0, a=1.0))
    sample = kept.at(T0 + 5 * MS)
    assert sample is not None
    assert sample.names == ('b', 'a')
    np.testing.assert_array_equal(sample.positions, [2.0, 1.0])


def test_message_without_our_joints_harms_only_when_nothing_better_comes():
    kept = history((T0, 0.0))
    kept.reject('joint states lack a', at_once=False)
    assert kept.freshness(T0 + 50 * MS).ok
    found = kept.freshness(T0 + 150 * MS)
    assert (found.reason, found.text) == (Reason.BAD_STATE, 'joint_states: joint states lack a')
    kept.offer(joints(T0 + 160 * MS, a=1.0, b=1.0))
    assert kept.freshness(T0 + 160 * MS).ok


def test_message_without_our_joints_before_any_other_is_told():
    kept = history()
    kept.reject('joint states lack a', at_once=False)
    assert kept.freshness(T0).reason is Reason.BAD_STATE
