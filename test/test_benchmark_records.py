"""Merging of benchmark records (benchmarks/records.py), and the peers' drivers as far as they go
without a GPU.
"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / 'benchmarks'


@pytest.fixture(scope='module')
def records():
    spec = importlib.util.spec_from_file_location('records', BENCHMARKS / 'records.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def record():
    held = json.loads((BENCHMARKS / 'h200-pi05.json').read_text())
    ours = (r for r in held if r.get('implementation', 'vla_trt_ros') == 'vla_trt_ros')
    return next(r for r in ours if r['steps'] == 10 and not r.get('uploaded_total_ms'))


def merged(records, path, *more):
    records.merge(path, more)
    return json.loads(path.read_text())


def test_the_same_measurement_is_replaced_where_it_was_made_again(records, record, tmp_path):
    path = tmp_path / 'new' / 'all.json'
    peer = record | {'implementation': 'a peer'}
    assert merged(records, path, record, peer) == [record, peer]
    again = record | {'e2e_total_ms': 1.0}
    assert merged(records, path, again) == [peer, again]


@pytest.mark.parametrize(
    'change',
    [{'clock': 'another'}, {'precision': 'fp4'}, {'steps': 3}, {'views': 1}, {'prompt_tokens': 7}],
)
def test_another_measurement_stays_beside(records, record, tmp_path, change):
    path = tmp_path / 'all.json'
    assert len(merged(records, path, record)) == 1
    assert len(merged(records, path, record | change)) == 2


def test_a_prompt_counts_by_the_engine_it_runs_in(records, record, tmp_path):
    path = tmp_path / 'all.json'
    first = record | {'prompt_tokens': 196, 'prompt_bucket': 200}
    again = record | {'prompt_tokens': 199, 'prompt_bucket': 200}
    merged(records, path, first)
    assert merged(records, path, again) == [again]


def test_a_record_without_implementation_is_ours(records, record, tmp_path):
    path = tmp_path / 'all.json'
    old = {name: value for name, value in record.items() if name != 'implementation'}
    merged(records, path, old)
    assert len(merged(records, path, record | {'implementation': 'vla_trt_ros'})) == 1


def test_shapes_by_name(records):
    assert records.shape('3x200x50') == (3, 200, 50)
    with pytest.raises(SystemExit, match="shape '3x200': write VIEWSxTOKENSxHORIZON"):
        records.shape('3x200')


def test_a_record_in_a_line(records, record):
    assert records.line(record).startswith('vla_trt_ros ')
    assert 'uploaded' not in records.line(record)
    early = record | {'uploaded_total_ms': 9.5}
    assert ', 9.5 with frames uploaded before (vision ' in records.line(early)


def test_records_are_told_and_merged_where_a_file_is_named(records, record, tmp_path, capsys):
    path = tmp_path / 'all.json'
    records.tell([record], None)
    assert not path.exists()
    records.tell([record], path)
    assert capsys.readouterr().out.splitlines() == [records.line(record)] * 2
    assert json.loads(path.read_text()) == [record]


def test_overlap_records_replace_the_same_measurement_and_stay_beside_the_figures():
    pytest.importorskip('rclpy', reason="needs ROS: pip install '.[ros]', or a ROS distribution")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import gpu_nodes
    finally:
        sys.path.remove(str(BENCHMARKS))
    one = {'hardware': 'a GPU', 'precision': 'bf16', 'steps': 10, 'camera_rate_hz': 120.0, 'on': 1}
    held = gpu_nodes.with_overlap({'chunks_per_s': 30.0}, one)
    held = gpu_nodes.with_overlap(held, one | {'precision': 'fp8'})
    held = gpu_nodes.with_overlap(held, one | {'on': 2})
    assert held['chunks_per_s'] == 30.0
    assert [(r['precision'], r['on']) for r in held['overlap']] == [('fp8', 1), ('bf16', 2)]


def test_what_one_command_puts_into_a_file_leaves_what_others_put_there(records, tmp_path):
    path = tmp_path / 'figures.json'
    records.put(path, {'map50': 0.9})
    records.put(path, {'rate': 1.0, 'detail': {'n': 3}})
    records.put(path, {'rate': 2.0})
    expected = {'map50': 0.9, 'rate': 2.0, 'detail': {'n': 3}}
    assert json.loads(path.read_text()) == expected
