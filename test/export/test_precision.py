"""The table of precisions."""

from pathlib import Path

import pytest

from vla_trt_ros.config import STAGES, Precision, precisions_of, targets
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.export.precision import PRECISIONS, check_stage, check_target, precision_row


def test_every_precision_that_a_platform_may_name_has_a_row():
    assert set(PRECISIONS) == set(Precision.__args__)
    named = {p for target in targets() for p in precisions_of(target)}
    assert named == set(PRECISIONS)


def test_the_cpu_runs_what_the_platform_check_lets_it():
    able = {name for name, row in PRECISIONS.items() if row.cpu_compute}
    assert able == set(precisions_of('cpu'))


@pytest.mark.parametrize(
    ('name', 'gpu'),
    [('bf16', 'sm_86'), ('int8', 'sm_86'), ('fp8', 'sm_89'), ('nvfp4', 'sm_110')],
)
def test_the_smallest_gpu(name, gpu):
    assert precision_row(name).smallest_gpu == gpu


def test_float16_is_refused_where_gemma_overflows_it_and_only_there():
    with pytest.raises(ConfigError, match="prefix: fp16 is refused: Gemma's residual"):
        check_stage('prefix', 'fp16')
    assert PRECISIONS['fp16'].stages == ('vision', 'denoise')
    for name in set(PRECISIONS) - {'fp16'}:
        assert PRECISIONS[name].stages == STAGES


def test_half_precisions_hand_on_one_dtype_so_that_stages_can_differ():
    assert {r.boundary for n, r in PRECISIONS.items() if n != 'fp32'} == {'bfloat16'}


def test_what_is_quantised_and_what_needs_calibration():
    assert [n for n, r in PRECISIONS.items() if r.quantized] == ['fp8', 'int8', 'int4', 'nvfp4']
    assert [n for n, r in PRECISIONS.items() if r.calibrated] == ['fp8', 'int8', 'nvfp4']


def test_unknown_names():
    with pytest.raises(ConfigError, match="precision 'fp4' is none of fp32, fp16"):
        precision_row('fp4')
    with pytest.raises(ConfigError, match="stage 'decoder' is none of vision"):
        check_stage('decoder', 'bf16')
    with pytest.raises(ConfigError, match="target 'sm_70' is none of cpu"):
        check_target('bf16', 'sm_70')


def test_a_gpu_that_lacks_it():
    with pytest.raises(ConfigError, match='fp8 does not run on sm_87; choose of .*from sm_89 on'):
        check_target('fp8', 'sm_87')
    assert check_target('fp8', 'sm_89').name == 'fp8'


PAGE = Path(__file__).parents[2] / 'docs' / 'precisions.md'


@pytest.mark.skipif(not PAGE.is_file(), reason='the pages are not beside the tests')
def test_the_page_of_precisions_has_the_table():
    lines = [line.split('|')[1:-1] for line in PAGE.read_text().splitlines() if '| sm_' in line]
    found = {cells[0].strip(): [c.strip() for c in cells] for cells in lines}
    assert list(found) == list(PRECISIONS)
    for name, row in PRECISIONS.items():
        *_, compute, _, opset, gpu, cpu = found[name]
        assert (compute, int(opset), gpu) == (row.compute, row.opset, row.smallest_gpu)
        assert cpu.startswith('yes' if row.cpu_compute else 'no')
