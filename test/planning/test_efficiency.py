"""The file of measured shares."""

import json

import pytest

from vla_trt_ros.errors import ConfigError
from vla_trt_ros.planning.efficiency import read_shares

GOOD = {'vision': 0.6, 'prefix': 0.5, 'denoise': 1}


def write(tmp_path, data):
    path = tmp_path / 'shares.json'
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_shares_and_where_they_come_from(tmp_path):
    shares = read_shares(write(tmp_path, GOOD | {'source': 'thor, 2 views, June'}))
    assert [shares.share(s) for s in ('vision', 'prefix', 'denoise')] == [0.6, 0.5, 1.0]
    assert shares.source == 'thor, 2 views, June'


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (GOOD | {'vision': 1.2}, 'vision 1.2 is no share'),
        (GOOD | {'prefix': 0}, 'prefix 0 is no share'),
        (GOOD | {'denoise': -0.1}, 'denoise -0.1 is no share'),
        (GOOD | {'denoise': float('nan')}, 'nan is not a finite number'),
        (GOOD | {'denoise': '60 %'}, "denoise: expected float, found '60 %'"),
        (GOOD | {'visoin': 0.6}, "unknown key 'visoin'; did you mean 'vision'"),
        ({'vision': 0.6, 'prefix': 0.5}, "'denoise' is missing"),
        (0.6, 'expected a mapping'),
        ('{"vision": 0.6', 'is not JSON'),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, data, message):
    with pytest.raises(ConfigError, match=message):
        read_shares(write(tmp_path, data))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match='shares.json: cannot be read'):
        read_shares(tmp_path / 'shares.json')
