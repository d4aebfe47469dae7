from dataclasses import replace

import numpy as np
import pytest
from gate_world import MS, ROBOT, STEP_NS, T0, hermite

from vla_trt_ros.actions.blend import FadeIn, join, ramp
from vla_trt_ros.actions.limits import Limits
from vla_trt_ros.actions.timeline import Timeline

LIMITS = Limits.of(ROBOT)
AT_REST = Timeline.rest(np.array([0.1, 0.2]), T0, 0.05)


def rows(*shoulder: float) -> np.ndarray:
    return np.array([[p, 0.2] for p in shoulder])


def test_ramp_rises_without_a_kink_and_zero_duration_is_a_step():
    elapsed = np.array([-10, 0, 25, 50, 100, 200]) * MS
    assert ramp(elapsed, 0.1).tolist() == [0.0, 0.0, 0.15625, 0.5, 1.0, 1.0]
    assert ramp(elapsed, 0.0).tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_rows_already_reached_are_left_out_and_the_rest_keep_their_time():
    plan = join(AT_REST, rows(0.1, 0.11, 0.12, 0.13), T0, STEP_NS, T0 + 60 * MS, LIMITS)
    assert plan is not None
    assert plan.timeline.times == pytest.approx([0.0, 0.04, 0.09, 0.14])
    assert plan.timeline.positions[1:, 0] == pytest.approx([0.11, 0.12, 0.13])
    assert plan.timeline.positions[0] == pytest.approx([0.1, 0.2])


def test_rows_past_the_age_budget_are_left_out_and_the_motion_ends_at_rest():
    until = T0 + 149 * MS
    plan = join(AT_REST, rows(0.11, 0.12, 0.13), T0, STEP_NS, T0, LIMITS, until_ns=until)
    assert plan is not None
    assert plan.timeline.times == pytest.approx([0.0, 0.05, 0.1])
    assert not plan.timeline.velocities[-1].any()


@pytest.mark.parametrize(
    ('now_ms', 'until_ms', 'valid_from'), [(150, 9999, 0), (0, 40, 0), (0, 9999, 3), (0, 99, 2)]
)
def test_no_row_left(now_ms, until_ms, valid_from):
    plan = join(
        AT_REST,
        rows(0.1, 0.2, 0.3),
        T0,
        STEP_NS,
        T0 + now_ms * MS,
        LIMITS,
        valid_from=valid_from,
        until_ns=T0 + until_ms * MS,
    )
    assert plan is None


def test_before_a_chunk_starts_the_running_motion_goes_on():
    start = T0 + 100 * MS
    plan = join(AT_REST, rows(0.15, 0.2), start, STEP_NS, T0, LIMITS)
    assert plan is not None
    assert plan.timeline.times == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert plan.timeline.positions[:, 0] == pytest.approx([0.1, 0.1, 0.1, 0.15, 0.2])


def test_cross_fade_moves_over_from_the_old_rows_to_the_new():
    old = join(AT_REST, rows(*[0.1] * 8), T0, STEP_NS, T0, LIMITS)
    new = rows(*[0.12] * 8)
    plan = join(old.timeline, new, T0, STEP_NS, T0, LIMITS, blend_time=0.2)
    # smoothstep at 50, 100, 150, 200 ms of 200
    assert plan.timeline.positions[1:5, 0] == pytest.approx(
        [0.1 + 0.02 * w for w in (0.15625, 0.5, 0.84375, 1.0)]
    )


def test_fade_in_starts_at_the_measured_position():
    fade = FadeIn(np.array([0.1, 0.2]), T0, 0.2)
    plan = join(AT_REST, rows(*[0.2] * 8), T0, STEP_NS, T0, LIMITS, fade_in=fade)
    assert plan.timeline.positions[:6, 0] == pytest.approx(
        [0.1 + 0.1 * w for w in (0.0, 0.15625, 0.5, 0.84375, 1.0, 1.0)]
    )
    assert (fade.over(T0 + 199 * MS), fade.over(T0 + 200 * MS)) == (False, True)


@pytest.mark.parametrize('blend_time', [0.0, 0.1])
@pytest.mark.parametrize('every_ms', [50, 70, 100, 130])
@pytest.mark.parametrize('speed', [0.4, -1.0, 1.9])
def test_a_straight_line_streamed_in_chunks_keeps_its_speed_through_the_seams(
    blend_time, every_ms, speed
):
    """Chunks of ten rows, each made 80 ms before it comes, followed by the controller's cubic."""
    wide = replace(LIMITS, lower=np.array([-9.0, -9.0]), upper=np.array([9.0, 9.0]))

    def line(t):
        return np.stack([speed * t, np.full_like(t, 0.2)], axis=-1)

    def chunk(ms):
        return line(ms / 1000 - 0.08 + 0.05 * np.arange(1, 11))

    t = 0.05 * np.arange(11)
    running = Timeline(T0, t, line(t), np.tile([speed, 0.0], (11, 1)))
    speeds = []
    for ms in range(0, 1000, 10):
        if ms % every_ms == 0:
            start, now = T0 + (ms - 80) * MS, T0 + ms * MS
            plan = join(running, chunk(ms), start, STEP_NS, now, wide, blend_time=blend_time)
            running = plan.timeline
            assert plan.clamped.tolist() == [0, 0]
            knots = (ms / 1000 + running.times, running.positions, running.velocities)
        speeds.append(hermite(*knots, ms / 1000 + 0.005)[1][0])
    assert np.array(speeds) == pytest.approx(speed, rel=1e-6)
