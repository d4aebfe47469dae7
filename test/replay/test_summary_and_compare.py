"""Frames into metrics, and two settings on the same frames."""

import math

import numpy as np
import pytest
from parts_on_disk import COLUMNS, part

from vla_trt_ros.replay.compare import mean_estimate, paired_difference
from vla_trt_ros.replay.summary import metric_names, summarise


def metrics(*parts, real=False, deadline_ms=100.0):
    return summarise(parts, real=real, deadline_ms=deadline_ms).metrics


def test_every_frame_weighs_the_same_and_gaps_do_not_count():
    found = metrics(part(mae_h1=[1.0, 2.0, math.nan]), part(mae_h1=[6.0]))
    assert found['mae_h1'] == pytest.approx(3.0)
    assert found['frames'] == 4
    assert 'mae_all' not in found  # nobody knows it


def test_jerk_is_a_root_mean_square_and_the_largest_seam_is_told():
    found = metrics(part(jerk=[3.0, 4.0], seam=[0.1, 0.3]))
    assert found['jerk'] == pytest.approx(math.sqrt(12.5))
    assert found['seam'] == pytest.approx(0.2)
    assert found['seam_max'] == pytest.approx(0.3)


def test_percentiles_and_missed_deadlines():
    found = metrics(part(inference_ms=np.arange(1.0, 102.0)), deadline_ms=91.0)
    assert [found[f'inference_p{q}_ms'] for q in (50, 95, 99)] == [51.0, 96.0, 100.0]
    assert found['deadline_miss_rate'] == pytest.approx(10 / 101)


def test_timing_of_the_real_clock_by_the_formulas_of_ros2_benchmark():
    counts = {'frames_sent': 20, 'frames_dropped': 3, 'frames_rejected': 2, 'pairs': 8}
    one = part(
        t=[0.0, 0.1, 0.2, 0.4],
        latency_ms=[20.0, 20.0, 40.0, 20.0],
        inference_ms=[1.0] * 4,
        starved_ms=[0.0, 5.0, 0.0, 15.0],
        counts=counts | {'refused_STALE_IMAGE': 2},
    )
    found = metrics(one, real=True)
    # Published at 20, 120, 240 and 420 ms: 100, 120, 180 apart, which change by 20 and 60.
    assert found['mean_jitter_ms'] == pytest.approx(40.0)
    assert found['max_jitter_ms'] == pytest.approx(60.0)
    assert found['std_dev_jitter_ms'] == pytest.approx(20.0)
    assert found['mean_frame_rate'] == pytest.approx(10.0)
    assert (found['num_frames_sent'], found['num_missed_frames']) == (20, 5)
    assert found['missed_rate'] == 0.25
    assert found['stale_rate'] == 0.25
    assert found['starved_s'] == pytest.approx(0.02)
    assert found['max_latency_ms'] == 40.0
    assert 'mean_jitter_ms' not in metrics(one)


def test_spread_between_noises():
    found = metrics(part(mae_all=[1.0, 1.0], seed=0), part(mae_all=[3.0, 3.0], seed=1))
    assert found['mae_all_seed_std'] == pytest.approx(math.sqrt(2.0))


def test_all_that_is_given_is_announced():
    one = part(t=[0.0, 0.1, 0.2], **{n: [1.0, 2.0, 3.0] for n in COLUMNS[2:]}, counts={'pairs': 3})
    other = part(mae_all=[1.0], seed=1)
    assert set(metrics(one, other, real=True)) <= set(metric_names(COLUMNS, real=True))


def test_mean_has_an_interval_over_blocks():
    rng = np.random.default_rng(4)
    found = mean_estimate([part(mae_h1=np.repeat(rng.normal(1.0, 0.1, 16), 100))], 'mae_h1')
    assert (found.frames, found.blocks) == (1600, 16)
    assert found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.1 / 4, rel=0.4)
    assert mean_estimate([part(mae_all=[1.0])], 'mae_h1') is None


def test_difference_is_taken_frame_by_frame():
    rng = np.random.default_rng(1)
    hard = rng.uniform(0.0, 10.0, 1200)  # frames differ far more than the policies do
    a = part(mae_h1=hard)
    b = part(mae_h1=hard + 0.1 + rng.normal(0.0, 0.01, 1200))
    found = paired_difference([b], [a], 'mae_h1')
    assert found.frames == 1200
    assert found.blocks == 12
    assert found.mean == pytest.approx(0.1, abs=0.002)
    assert 0.09 < found.low < found.mean < found.high < 0.11
    assert found.clear
    assert paired_difference([a], [b], 'mae_h1').mean == pytest.approx(-found.mean)
    assert found == paired_difference([b], [a], 'mae_h1')  # draws from a fixed seed


def test_neighbours_that_are_alike_widen_the_interval():
    rng = np.random.default_rng(2)
    per_block = np.repeat(rng.normal(0.0, 1.0, 20), 100)
    alone = rng.normal(0.0, 1.0, 2000)
    widths = []
    for d in (per_block, alone):
        found = paired_difference([part(mae_h1=d)], [part(mae_h1=0 * d)], 'mae_h1')
        widths.append(found.high - found.low)
    assert widths[0] > 5 * widths[1]
    # As much as 20 independent numbers allow: 2 x 1.96 / sqrt(20).
    assert widths[0] == pytest.approx(0.88, rel=0.35)


def test_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(60):
        d = np.repeat(rng.normal(0.5, 1.0, 30), 20) + rng.normal(0.0, 0.3, 600)
        t = np.repeat(np.arange(30), 20) * 5.0 + np.tile(np.arange(20) * 0.2, 30)
        found = paired_difference([part(t=t, mae_h1=d)], [part(t=t, mae_h1=0 * d)], 'mae_h1')
        held += found.low <= 0.5 <= found.high
    assert 51 <= held <= 60


def test_only_frames_that_both_judged_count():
    a = part(t=[0.0, 0.05, 0.1], mae_h1=[1.0, 1.0, math.nan])
    b = part(t=[0.05, 0.1, 0.15], mae_h1=[4.0, 5.0, 6.0])
    found = paired_difference([b], [a], 'mae_h1')
    assert (found.frames, found.mean) == (1, 3.0)
    assert math.isnan(found.low)  # one block says nothing of chance
    assert not found.clear
    assert paired_difference([b], [part(bag='another', mae_h1=[1.0])], 'mae_h1') is None
    assert paired_difference([b], [part(seed=1, mae_h1=[1.0])], 'mae_h1') is None
