"""The newest frame wins; frozen, late, backward and absent cameras each have their answer."""

import threading
import time

import pytest
from fakes import rgb_frame

from vla_trt_ros.camera.latest import RESTART_AFTER, LatestFrames
from vla_trt_ros.config import CameraConfig
from vla_trt_ros.datatypes import Reason

MS = 1_000_000
T0 = 1_000_000 * MS


def two_cameras() -> LatestFrames:
    cameras = {
        'base': CameraConfig('base/image_raw', max_age_ms=100),
        'wrist': CameraConfig('wrist/image_raw', max_age_ms=200),
    }
    return LatestFrames(cameras, max_skew_ms=40)


def both(latest: LatestFrames, base_ns: int, wrist_ns: int) -> None:
    assert latest.offer('base', rgb_frame(base_ns))
    assert latest.offer('wrist', rgb_frame(wrist_ns))


def test_fresh_pair_is_ok():
    latest = two_cameras()
    both(latest, T0, T0 + 5 * MS)
    assert latest.freshness(T0 + 90 * MS).ok


def test_camera_that_never_appears_is_named():
    latest = two_cameras()
    latest.offer('base', rgb_frame(T0))
    found = latest.freshness(T0)
    assert found.reason is Reason.NO_IMAGE
    assert found.text == 'camera wrist: nothing yet on wrist/image_raw.'


def test_age_budget_is_per_camera():
    latest = two_cameras()
    both(latest, T0, T0)
    found = latest.freshness(T0 + 101 * MS)
    assert found.reason is Reason.STALE_IMAGE
    assert (
        'camera base (base/image_raw): newest frame is 101 ms old (max_age_ms 100)' in found.text
    )


def test_frozen_camera_goes_stale_although_messages_come():
    latest = two_cameras()
    both(latest, T0, T0)
    for _ in range(10):
        assert not latest.offer('base', rgb_frame(T0))
    assert latest.freshness(T0 + 150 * MS).reason is Reason.STALE_IMAGE
    assert latest.stats()['base'].repeated == 10
    assert latest.stats()['base'].received == 1


def test_skew_names_the_late_camera():
    latest = two_cameras()
    both(latest, T0, T0 + 41 * MS)
    found = latest.freshness(T0 + 50 * MS)
    assert found.reason is Reason.CAMERA_SKEW
    assert 'camera base is 41 ms behind' in found.text


def test_stamp_from_the_future_is_a_clock_fault():
    latest = two_cameras()
    both(latest, T0 + 300 * MS, T0 + 300 * MS)
    found = latest.freshness(T0)
    assert found.reason is Reason.CLOCK
    assert '300 ms in the future' in found.text


def test_one_step_back_is_refused_and_counted():
    latest = two_cameras()
    both(latest, T0 + 50 * MS, T0)
    assert not latest.offer('base', rgb_frame(T0))
    assert latest.stats()['base'].backward == 1
    newest = latest.newest('base')
    assert newest is not None
    assert newest.stamp_ns == T0 + 50 * MS


def test_restarted_driver_is_accepted_after_a_rising_run():
    latest = two_cameras()
    both(latest, T0 + 10**12, T0)
    taken = [latest.offer('base', rgb_frame(T0 + i * 33 * MS)) for i in range(RESTART_AFTER)]
    assert taken == [False] * (RESTART_AFTER - 1) + [True]


def test_jitter_back_and_forth_is_never_a_restart():
    latest = two_cameras()
    both(latest, T0 + 10**12, T0)
    for i in range(4 * RESTART_AFTER):
        assert not latest.offer('base', rgb_frame(T0 - i * MS))


def test_unread_frames_count_as_dropped():
    latest = two_cameras()
    for i in range(5):
        latest.offer('base', rgb_frame(T0 + i * MS))
    assert latest.stats()['base'].dropped == 4
    latest.take()
    latest.offer('base', rgb_frame(T0 + 9 * MS))
    assert latest.stats()['base'].dropped == 4


def test_malformed_frames_are_told_once_the_good_one_is_stale():
    latest = two_cameras()
    both(latest, T0, T0)
    latest.reject('base', "encoding '32FC1' is unknown")
    assert latest.freshness(T0 + 50 * MS).ok
    found = latest.freshness(T0 + 150 * MS)
    assert found.reason is Reason.BAD_IMAGE
    assert '32FC1' in found.text
    assert latest.stats()['base'].rejected == 1


@pytest.mark.alone
def test_wait_new_wakes_for_the_second_camera_only():
    latest = two_cameras()
    latest.offer('base', rgb_frame(T0))
    assert not latest.wait_new(timeout=0.01)
    timer = threading.Timer(0.05, latest.offer, ('wrist', rgb_frame(T0)))
    timer.start()
    begin = time.monotonic()
    assert latest.wait_new(timeout=5.0)
    assert time.monotonic() - begin < 4.0
    latest.take()
    assert not latest.wait_new(timeout=0.01)


def test_reset_forgets_frames_and_counts():
    latest = two_cameras()
    both(latest, T0, T0)
    latest.reset()
    assert latest.freshness(T0).reason is Reason.NO_IMAGE
    assert latest.stats()['base'].received == 0


def test_who_looks_beside_sees_what_the_tick_took():
    latest = two_cameras()
    assert latest.beside('base') is None
    both(latest, T0, T0)
    assert latest.beside('base').stamp_ns == T0
    latest.take()
    latest.offer('base', rgb_frame(T0 + 30 * MS))
    assert latest.beside('base').stamp_ns == T0
    assert latest.newest('base').stamp_ns == T0 + 30 * MS
    latest.take()
    assert latest.beside('base').stamp_ns == T0 + 30 * MS


def test_beside_a_policy_that_stands_still_it_is_the_newest_frame():
    latest = two_cameras()
    both(latest, T0, T0)
    latest.take()
    latest.offer('base', rgb_frame(T0 + 100 * MS))
    assert latest.beside('base').stamp_ns == T0
    latest.offer('base', rgb_frame(T0 + 101 * MS))
    assert latest.beside('base').stamp_ns == T0 + 101 * MS


def test_beside_does_not_use_a_frame_up():
    latest = two_cameras()
    both(latest, T0, T0)
    latest.beside('base')
    assert latest.wait_new(0.0)


def test_between_ticks():
    latest = two_cameras()
    assert latest.wait_between(0.0)
    latest.take()
    assert not latest.wait_between(0.01)
    waited = []
    thread = threading.Thread(target=lambda: waited.append(latest.wait_between(5.0)))
    thread.start()
    while not latest._changed._waiters:
        time.sleep(0.001)
    latest.ticked()
    latest.take()  # the next one began before anybody woke
    thread.join()
    assert waited == [True]
    latest.ticked()
    assert latest.wait_between(0.0)
