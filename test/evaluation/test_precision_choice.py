"""One precision for all stages that a bundle has it for."""

from types import SimpleNamespace

import pytest

from vla_trt_ros.config import load_platform
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.evaluation.precision_choice import at_precision, precision_label, stages_of


def engine(stage, precision, backend='onnxruntime', target='any'):
    return SimpleNamespace(stage=stage, precision=precision, backend=backend, target=target)


def bundle(*engines):
    every = [engine(stage, 'fp32') for stage in ('vision', 'prefix', 'denoise')]
    return SimpleNamespace(name='demo', manifest=SimpleNamespace(engines=[*every, *engines]))


def test_stages_that_lack_it_run_in_fp32_and_the_backends_stay():
    cpu = load_platform('cpu')
    some = at_precision(cpu, bundle(engine('prefix', 'int8'), engine('denoise', 'int8')), 'int8')
    assert stages_of(some) == {
        'vision': 'onnxruntime fp32',
        'prefix': 'onnxruntime int8',
        'denoise': 'onnxruntime int8',
    }
    assert precision_label(some) == 'fp32+int8'
    assert some.name == 'cpu'
    assert stages_of(at_precision(some, bundle(), 'fp32')) == stages_of(cpu)
    assert precision_label(cpu) == 'fp32'


@pytest.mark.parametrize(
    'other',
    [engine('prefix', 'int8', backend='tensorrt'), engine('prefix', 'int8', target='sm_87')],
    ids=['backend', 'target'],
)
def test_engines_of_another_machine_do_not_count(other):
    with pytest.raises(ConfigError, match="--precision int8: bundle 'demo' holds fp32 for"):
        at_precision(load_platform('cpu'), bundle(other), 'int8')


def test_what_the_processor_cannot_do_is_refused():
    with pytest.raises(ConfigError, match='fp8 does not run on cpu'):
        at_precision(load_platform('cpu'), bundle(engine('vision', 'fp8')), 'fp8')
