"""Every number of a frame, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from recordings import MS, ROBOT, T0, command

from vla_trt_ros.datatypes import ActionChunk, ChunkFlag, ChunkTiming, StageTimes
from vla_trt_ros.pipeline import TickResult
from vla_trt_ros.replay.columns import columns, grippers, horizon_names
from vla_trt_ros.replay.drive import Tick
from vla_trt_ros.replay.judge import Judge
from vla_trt_ros.replay.kinematics import Chain
from vla_trt_ros.replay.recorded import RecordedActions

STEP = 50 * MS
REST = np.array([0.1, 0.6, 0.2, 1.0])


def tick(k, actions, ready_ms=0, flags=ChunkFlag.NONE, clamped=0):
    start = T0 + k * STEP
    chunk = ActionChunk(
        start,
        start,
        STEP,
        ROBOT.joint_names,
        actions.astype(np.float32),
        clamped=clamped,
        flags=flags,
    )
    timing = ChunkTiming(
        0,
        10,
        ('base', 'wrist'),
        (3.0, 8.0),
        (0.0, 0.0),
        (1, 1),
        (0, 0),
        (0, 0),
        0.0,
        4.0,
        0.0,
        StageTimes(),
        21.0,
        100.0,
    )
    return Tick(k, TickResult(chunk, timing), {}, 'p', start, start + ready_ms * MS)


def done(count=40, hand_x=lambda k: 0.1):
    recorded = RecordedActions(ROBOT, 'command')
    for k in range(count):
        recorded.offer(T0 + k * STEP, command(T0 + k * STEP, hand_x(k)))
    recorded.advance(T0 + count * STEP)
    return recorded


def judged(ticks, recorded=None, horizon=10, **options):
    judge = Judge(ROBOT, horizon, recorded or done(), T0, **options)
    for t in ticks:
        judge.add(t)
    return [j.values for j in judge.ready(end=True)]


def still(**offsets):
    rows = np.tile(REST, (10, 1))
    for name, values in offsets.items():
        rows[:, ROBOT.joint_names.index(name)] += values
    return rows


def test_errors_at_every_horizon_per_joint_and_over_all():
    # hand_x is off by 1 mm in row 0, 2 mm in row 1, ...; hand_y always by -4 mm.
    rows = still(hand_x=0.001 * np.arange(1, 11), hand_y=-0.004)
    (found,) = judged([tick(0, rows)])
    for name, h in (('h1', 1), ('h5', 5), ('h10', 10), ('all', 10)):
        off = 0.001 * np.arange(1, h + 1)
        assert found[f'mae_{name}.hand_x'] == pytest.approx(off.mean(), rel=1e-4)
        assert found[f'mse_{name}.hand_x'] == pytest.approx((off**2).mean(), rel=1e-4)
        assert found[f'mae_{name}.hand_y'] == pytest.approx(0.004, rel=1e-4)
        assert found[f'mae_{name}'] == pytest.approx((off.mean() + 0.004) / 4, rel=1e-4)
    assert found['compared_rows'] == 10
    assert found['action.hand_x'] == pytest.approx(0.101)
    assert found['recorded.hand_x'] == pytest.approx(0.1)
    assert found['inference_ms'] == 21.0
    assert found['image_age_ms'] == 8.0


def test_rows_behind_the_end_of_the_recording_do_not_count():
    (found,) = judged([tick(0, still(hand_x=np.r_[[0.01] * 4, [9.0] * 6]))], done(count=4))
    # Position commands are held for five rows more; the row after those is unknown.
    assert found['compared_rows'] == 9
    (found,) = judged([tick(0, still(hand_x=np.r_[[0.01] * 9, 9.0]))], done(count=4))
    assert found['mae_all.hand_x'] == pytest.approx(0.01, rel=1e-4)


def test_gripper_agrees_on_the_same_side_or_close_by():
    wish = np.array([1.0, 0.95, 0.55, 0.4, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    (found,) = judged([tick(0, still(gripper=wish - 1.0))])
    assert found['gripper_agreement'] == pytest.approx(0.6)
    half = still(gripper=-0.55)  # 0.45 where 0.5 was asked for
    recorded = RecordedActions(ROBOT, 'command')
    recorded.offer(T0, command(T0, 0.1, gripper=0.5000001))
    assert judged([tick(0, half)], recorded)[0]['gripper_agreement'] == 1.0


GANTRY = """<robot><link name="l0"/><link name="l1"/><link name="l2"/><link name="l3"/>
<joint name="hand_x" type="prismatic"><axis xyz="1 0 0"/>
<parent link="l0"/><child link="l1"/></joint>
<joint name="hand_y" type="prismatic"><axis xyz="0 1 0"/>
<parent link="l1"/><child link="l2"/></joint>
<joint name="hand_z" type="prismatic"><axis xyz="0 0 1"/>
<parent link="l2"/><child link="l3"/></joint>
</robot>"""


def test_error_of_the_tip_is_a_distance(tmp_path):
    (tmp_path / 'gantry.urdf').write_text(GANTRY)
    tip = Chain(tmp_path / 'gantry.urdf', 'l3', ROBOT.joint_names)
    (found,) = judged([tick(0, still(hand_x=0.003, hand_z=-0.004, gripper=-0.7))], tip=tip)
    assert found['tip_error'] == pytest.approx(0.005, rel=1e-4)
    assert 'tip_error' not in judged([tick(0, still())])[0]


def test_which_joints_are_grippers():
    assert grippers(ROBOT) == (3,)
    assert horizon_names(50) == {'h1': 1, 'h5': 5, 'h10': 10, 'all': 50}
    assert horizon_names(4) == {'h1': 1, 'all': 4}
    assert 'mae_h5' not in columns(ROBOT, 4)


def test_seam_is_the_distance_where_the_new_chunk_takes_over():
    first, second = still(hand_x=0.01 * np.arange(10)), still(hand_x=0.05)
    # Two steps later the first chunk is at its row 2.
    found = judged([tick(0, first), tick(2, second)])
    assert 'seam' not in found[0]
    assert found[1]['seam.hand_x'] == pytest.approx(0.03, rel=1e-4)
    assert found[1]['seam'] == pytest.approx(0.03 / 4, rel=1e-4)
    # Published 60 ms late it takes over at its own row 1, the first one's row 3.
    late = still(hand_x=np.r_[9.0, 0.05, [9.0] * 8])
    assert judged([tick(0, first), tick(2, late, ready_ms=60)])[1]['seam.hand_x'] == pytest.approx(
        0.02, rel=1e-4
    )


@pytest.mark.parametrize('gap', ['first', 'silence', 'backward'])
def test_no_seam_between_two_runs(gap):
    options = {'flags': ChunkFlag.FIRST} if gap == 'first' else {}
    k = {'first': 1, 'silence': 31, 'backward': -3}[gap]
    found = judged([tick(0, still()), tick(k, still(hand_x=1.0), **options)])
    assert 'seam' not in found[1]
    assert found[1]['block'] // 1000 == 2
    assert np.isnan(found[1].get('jerk', np.nan)) or found[1]['jerk'] < 1e-3


def test_jerk_is_the_third_difference_of_what_is_in_force():
    # One row of each chunk is used: 0.1 + a k^3 has the third difference 6 a.
    a = 1e-5
    ticks = [tick(k, still(hand_x=a * (k + np.arange(10)) ** 3)) for k in range(8)]
    found = judged(ticks, done(hand_x=lambda k: 0.1))
    expected = 6 * a / 0.05**3 / 2  # of four joints one moves: RMS halves it
    assert [f['jerk'] for f in found[3:]] == pytest.approx([expected] * 5, rel=2e-2)
    assert np.isnan([f['jerk'] for f in found[:3]]).all()
    assert [f['jerk_recorded'] for f in found[3:7]] == pytest.approx([0.0] * 4, abs=1e-6)


def test_chunks_that_come_faster_than_rows_are_sampled_once_a_step():
    def at(ms):
        made = tick(0, still(hand_x=1e-4 * np.arange(10)))
        chunk = replace(made.result.chunk, start_ns=T0 + ms * MS)
        return replace(made, result=replace(made.result, chunk=chunk), ready_ns=T0 + ms * MS)

    found = judged([at(0), at(20), at(40), at(60)])
    assert 'limit_rate' not in found[1]  # no moment of the grid in it
    assert 'jerk' not in found[1]


def test_steps_beyond_the_robots_limit():
    rows = still(hand_x=np.r_[0.0, 0.02, 0.04, [0.04] * 7])  # 12.5 mm a row are allowed
    (found,) = judged([tick(0, rows)])
    assert found['limit_rate'] == pytest.approx(2 / (9 * 4))


def test_clamped_share_and_time_without_a_chunk():
    found = judged([tick(0, still(), clamped=4), tick(12, still(), ready_ms=50)])
    assert found[0]['clamp_rate'] == pytest.approx(0.1)
    assert found[1]['latency_ms'] == 50.0
    assert found[1]['rows_over'] == 1
    # The first ends 500 ms after T0; the second comes into force at 650.
    assert found[1]['starved_ms'] == pytest.approx(150.0)


def test_a_frame_waits_until_its_rows_are_over_and_its_successor_is_known():
    recorded = done()
    judge = Judge(ROBOT, 10, recorded, T0)
    judge.add(tick(0, still()))
    recorded.advance(T0 + 600 * MS)
    assert not list(judge.ready())
    judge.add(tick(1, still()))
    assert [j.tick.index for j in judge.ready()] == [0]
    assert not list(judge.ready())
    recorded.advance(T0 + 5 * STEP)
    assert [j.tick.index for j in judge.ready(end=True)] == [1]


def test_blocks_are_five_seconds_of_a_run():
    recorded = done(count=300)
    found = judged([tick(k, still()) for k in range(0, 240, 8)], recorded)
    assert sorted({f['block'] for f in found}) == [1000.0, 1001.0, 1002.0]
