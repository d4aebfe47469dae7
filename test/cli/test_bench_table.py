"""Tables of benchmark records."""

from dataclasses import replace

import pytest
from bench_records import RECORD

from vla_trt_ros.cli.bench_record import OtherRecord
from vla_trt_ros.cli.bench_table import (
    against,
    beside,
    floors,
    heading,
    latency,
    report,
    step_model,
)

RUNTIMES = {'vision': 'tensorrt fp16', 'prefix': 'tensorrt fp8', 'denoise': 'cuda_graph bf16'}
SLOW = replace(RECORD, steps=3, denoise_ms=6.5, e2e_total_ms=24.0, p50_ms=24.0)
FLOOR = {'floor_device': 'H200 SXM', 'floor_ms': 2.9, 'vision_floor_ms': 0.5}
FLOOR |= {'prefix_floor_ms': 2.0, 'denoise_floor_ms': 0.4}
OTHER = OtherRecord(
    hardware='a GPU',
    backend='triton',
    precision='bf16',
    views=3,
    prompt_tokens=200,
    horizon=50,
    steps=3,
    e2e_total_ms=36.0,
    clock='graph replay',
    vision_ms=3.0,
    implementation='a peer',
)


def row(text: str, first: str) -> list[str]:
    """The words of the one row that starts with ``first``."""
    (found,) = [line for line in text.splitlines() if line.split()[:1] == [first]]
    return found.split()


def test_latency_gives_totals_tails_and_shares():
    text = latency([replace(RECORD, frames_ms=0.5, upload_ms=0.3), SLOW])
    assert row(text, '1')[:8] == ['1', '20.00', '31.25', '1.562', '50.0', '0.50', '1.50', '0.30']
    assert '4.00 (20.0 %)  8.00 (40.0 %)  2.50 (12.5 %)' in text
    assert row(text, '1')[-1] == '3.20'


def test_a_whole_with_frames_uploaded_before_stands_beside():
    clock = 'frames on the GPU in'
    quick = replace(
        RECORD, uploaded_total_ms=19.4, uploaded_p99_ms=30.0, uploaded_clock=clock, frames_ms=0.6
    )
    text = latency([quick, SLOW])
    assert text.splitlines()[0].split()[7:11] == ['uploaded', 'ms', 'its', 'p99']
    assert row(text, '1')[:8] == ['1', '20.00', '31.25', '1.562', '50.0', '19.40', '30.00', '0.60']
    assert 'uploaded' not in latency([RECORD])
    assert f'uploaded: {clock}' in heading([quick], RUNTIMES)
    assert 'uploaded' not in heading([RECORD], RUNTIMES)


def test_the_rest_is_never_below_nothing():
    text = latency([replace(RECORD, e2e_total_ms=15.9)])
    assert row(text, '1')[-1] == '0.00'


def test_denoise_is_a_line_through_the_step_counts():
    text = step_model([RECORD, SLOW])
    assert text.startswith('denoise = 2.000 ms x steps + 0.500 ms (largest error 0.000 ms)')
    assert row(text, '3') == ['3', '6.50', '6.50', '+0.0', '%']


def test_a_step_count_off_the_line_shows_its_error():
    ten = replace(RECORD, steps=5, denoise_ms=12.5)
    text = step_model([RECORD, SLOW, ten])
    assert 'largest error 0.667 ms' in text
    assert row(text, '3') == ['3', '7.17', '6.50', '-10.3', '%']


def test_floors_give_the_ratio_of_each_stage():
    text = floors([replace(RECORD, **FLOOR)])
    assert 'over the floor of H200 SXM' in text
    assert row(text, '1')[1:3] == ['14.50', '2.90']
    assert '5.0 x   8.0 x   4.0 x    6.2 x' in text


def test_a_baseline_is_set_against_the_same_step_count():
    name = 'our network in PyTorch, eager'
    twin = replace(SLOW, implementation=name, e2e_total_ms=60.0, vision_ms=12.0, denoise_ms=26.0)
    text = against([RECORD, SLOW], [twin])
    assert text.startswith(f'against {name}: ')
    assert row(text, '3')[:5] == ['3', '60.00', '24.00', '2.50', 'x']
    assert '12.00 -> 4.00, 3.00 x' in text
    assert '26.00 -> 6.50, 4.00 x' in text


def test_peers_stand_beside_with_their_clock():
    other = replace(OTHER, views=2)
    lines = beside([RECORD, SLOW], [OTHER, other]).splitlines()
    assert lines[2].split()[-4:] == ['36.00', '3.00', '1.50', 'x']
    assert lines[3].split()[-2:] == ['36.00', '3.00']
    assert lines[-1] == 'a peer: graph replay'


@pytest.mark.parametrize('tokens', [196, 200])
def test_a_peer_that_pads_to_our_engine_does_the_same_work(tokens):
    assert replace(OTHER, prompt_tokens=tokens).same_work(SLOW)


@pytest.mark.parametrize(
    'change', [{'views': 2}, {'horizon': 10}, {'steps': 1}, {'prompt_tokens': 112}]
)
def test_another_shape_is_other_work(change):
    assert not replace(OTHER, **change).same_work(SLOW)


def test_heading_says_what_ran_on_what():
    text = heading([replace(RECORD, gpu_memory_mib=5000.4), RECORD], RUNTIMES)
    assert text.splitlines() == [
        'a GPU, beside a processor x 2; 5000 MiB of GPU memory in use',
        'bundle big, 3 views of 640x480, 196 prompt tokens in the engine of 200, horizon 50, '
        'n = 7',
        'vision: tensorrt fp16, prefix: tensorrt fp8, denoise: cuda_graph bf16',
        'clock: frames in, actions out',
        'stages: events',
    ]


def test_report_leaves_out_what_there_is_nothing_of():
    assert len(report([RECORD], RUNTIMES).split('\n\n')) == 2
    records = [replace(r, **FLOOR) for r in (RECORD, SLOW)]
    twin = replace(SLOW, implementation='a twin')
    parts = report(records, RUNTIMES, [twin], [OTHER]).split('\n\n')
    assert [p.split()[0] for p in parts[2:]] == ['denoise', 'over', 'against', 'beside:']
