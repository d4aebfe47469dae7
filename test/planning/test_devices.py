"""The table of devices, and devices of one's own."""

import json
from pathlib import Path

import pytest

from vla_trt_ros.config import available, load_platform
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.planning.devices import DEVICES, find_device

OWN = """
name: xavier
description: a device of one's own
target: sm_87
tflops: {half: 11.0, int8: 22.0}
bandwidth: 137.0
memory: 32.0
source: its data sheet, dense
"""


GPU_PLATFORMS = [p for p in available('platforms') if load_platform(p).target != 'cpu']


@pytest.mark.parametrize('name', GPU_PLATFORMS)
def test_every_gpu_platform_has_a_device_with_peaks_for_its_precisions(name):
    platform = load_platform(name)
    device = find_device('', platform.target)
    for choice in (platform.vision, platform.prefix, platform.denoise):
        assert device.rate(choice.precision) > 1e13


def test_rows_are_complete():
    assert len({d.name for d in DEVICES}) == len(DEVICES)
    for device in DEVICES:
        assert len(device.source) > 10
        rates = [device.tflops[p] for p in ('fp32', 'half')]
        rates += [r for p, r in device.tflops.items() if p not in ('fp32', 'half')]
        assert rates[0] < rates[1] < min(rates[2:])


def test_the_h200_row_is_the_best_that_was_measured_rounded_up():
    file = Path(__file__).parents[2] / 'benchmarks' / 'gpu-peaks-h200.json'
    measured = json.loads(file.read_text())
    device = find_device('h200', 'sm_90')
    for name in ('half', 'fp8'):
        assert 1 <= device.tflops[name] / measured['tflops'][name]['fastest'] < 1.1
    copy = measured['bandwidth_gb_s']['copy, read and written']
    assert device.bandwidth == pytest.approx(copy['fastest'], rel=2e-3)


def test_int4_is_computed_in_half():
    device = find_device('orin', 'sm_87')
    assert device.rate('int4') == device.rate('bf16') == device.rate('fp16') == 42.5e12
    assert device.rate('int8') == 85e12


def test_a_device_of_ones_own(tmp_path):
    path = tmp_path / 'xavier.yaml'
    path.write_text(OWN)
    device = find_device(str(path), 'sm_87')
    assert (device.name, device.rate('int8'), device.bandwidth) == ('xavier', 22e12, 137.0)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (OWN.replace('half', 'bf17'), "tflops: 'bf17' is none of fp32, half, fp8, int8, nvfp4"),
        (OWN.replace('137.0', '0'), 'bandwidth 0.0 must be above 0'),
        (OWN.replace('22.0', '-22.0'), 'int8 -22.0 must be above 0'),
        (OWN.replace('{half: 11.0, int8: 22.0}', '{}'), 'tflops is empty'),
        (OWN.replace('bandwidth', 'band_width'), "unknown key 'band_width'; did you mean"),
        (OWN.replace('memory: 32.0\n', ''), "'memory' is missing"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, text, message):
    path = tmp_path / 'xavier.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        find_device(str(path), 'sm_87')


@pytest.mark.parametrize(
    ('name', 'target', 'message'),
    [
        ('tegra', 'sm_87', "device 'tegra' is none of orin, thor"),
        ('', 'cpu', 'no peaks are known for target cpu; describe the device'),
        ('rtx4090', 'sm_120', 'device rtx4090 is of target sm_89, the platform of sm_120'),
        ('no/such.yaml', 'sm_87', 'no/such.yaml: cannot be read'),
    ],
)
def test_a_device_that_is_not_there_or_does_not_fit(name, target, message):
    with pytest.raises(ConfigError, match=message):
        find_device(name, target)
