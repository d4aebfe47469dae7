"""Statistics of openpi and LeRobot, and what is wrong with them."""

import json

import numpy as np
import pytest
from stats_files import numbers

from vla_trt_ros.bundle import ActionColumn, Layout
from vla_trt_ros.errors import BundleError
from vla_trt_ros.export.stats import find_statistics, parse_mode, read_statistics
from vla_trt_ros.preprocess.normalize import Normalize

LAYOUT = Layout(
    'arm', 0.05, ('a', 'b', 'c'), tuple(ActionColumn(n, 'absolute') for n in ('a', 'b', 'c'))
)
X = np.float32([[0.4, -0.7, 1.3]])


def openpi(path, state=None, actions=None):
    stats = {'state': state or numbers(3), 'actions': actions or numbers(3, 1.0)}
    path.write_text(json.dumps({'norm_stats': stats}))
    return path


def lerobot(path, state=None):
    path.write_text(json.dumps({'observation.state': state or numbers(3), 'action': numbers(3)}))
    return path


def test_openpi(tmp_path):
    found = read_statistics(openpi(tmp_path / 'norm_stats.json'), LAYOUT)
    assert found.method == 'quantiles'
    np.testing.assert_allclose(found.stats['state'].q01, [-1.0, -0.75, -0.5])
    np.testing.assert_allclose(found.stats['actions'].q99, [2.5, 2.75, 3.0])


def test_padding_of_zeros_is_cut(tmp_path):
    padded = {name: [*values, 0.0, 0.0] for name, values in numbers(3).items()}
    found = read_statistics(openpi(tmp_path / 'n.json', state=padded), LAYOUT)
    np.testing.assert_allclose(found.stats['state'].mean, [0.0, 0.25, 0.5])


@pytest.mark.parametrize('count', [2, 4])
def test_statistics_of_another_robot(tmp_path, count):
    path = openpi(tmp_path / 'n.json', actions=numbers(count, 1.0))
    with pytest.raises(
        BundleError, match=f"actions: mean has {count} entries, robot 'arm' has 3; these are"
    ):
        read_statistics(path, LAYOUT)


MODES = {
    'QUANTILES': lambda s, x: 2 * (x - s['q01']) / (s['q99'] - s['q01']) - 1,
    'MEAN_STD': lambda s, x: (x - s['mean']) / s['std'],
    'MIN_MAX': lambda s, x: 2 * (x - s['min']) / (s['max'] - s['min']) - 1,
    'QUANTILE10': lambda s, x: 2 * (x - s['q10']) / (s['q90'] - s['q10']) - 1,
}


@pytest.mark.parametrize('actions', MODES)
@pytest.mark.parametrize('state', MODES)
def test_every_mode_of_lerobot_gives_its_numbers(tmp_path, state, actions):
    table = numbers(3)
    table |= {'min': [-3.0, -2.0, -4.0], 'max': [1.0, 2.0, 3.0], 'count': [999]}
    table |= {'q10': [-0.5, -0.25, 0.0], 'q90': [0.75, 1.0, 1.5]}
    path = tmp_path / 'stats.json'
    path.write_text(json.dumps({'observation.state': table, 'action': table}))
    found = read_statistics(path, LAYOUT, {'state': state, 'actions': actions})
    columns = {name: np.array(values) for name, values in table.items()}
    for key, mode in (('state', state), ('actions', actions)):
        got = Normalize(found.stats[key], found.method)(X)
        np.testing.assert_allclose(got, MODES[mode](columns, X), atol=1e-5)


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        (lambda s: s.pop('q99'), 'state: q99 is missing, which QUANTILES needs'),
        (lambda s: s['q01'].__setitem__(1, float('nan')), 'state: q01 is not finite'),
        (lambda s: s['q01'].__setitem__(1, 9.0), 'q99 lies below q01'),
    ],
)
def test_bad_numbers(tmp_path, change, match):
    table = numbers(3)
    change(table)
    with pytest.raises(BundleError, match=match):
        read_statistics(lerobot(tmp_path / 'stats.json', table), LAYOUT)


@pytest.mark.parametrize('text', ['{"norm_stats": {"state"', '[1]', '{"norm_stats": [2]}'])
def test_malformed_files(tmp_path, text):
    path = tmp_path / 'norm_stats.json'
    path.write_text(text)
    with pytest.raises(BundleError, match='cannot be read as statistics'):
        read_statistics(path, LAYOUT)


def test_missing_key(tmp_path):
    path = tmp_path / 'stats.json'
    path.write_text(json.dumps({'action': numbers(3)}))
    with pytest.raises(BundleError, match=r"'observation.state' is missing; name another file"):
        read_statistics(path, LAYOUT)


def test_modes_have_names():
    assert parse_mode('MEAN_STD', 'x') == 'MEAN_STD'
    with pytest.raises(BundleError, match="config.json: normalisation 'IDENTITY' is none of"):
        parse_mode('IDENTITY', 'config.json')


def test_finding_the_file(tmp_path):
    with pytest.raises(BundleError, match='holds no statistics .* name them with --stats'):
        find_statistics(tmp_path)
    meta = tmp_path / 'meta'
    meta.mkdir()
    lerobot(meta / 'stats.json')
    assert find_statistics(tmp_path) == meta / 'stats.json'
    for asset in ('droid', 'mine'):
        (tmp_path / 'assets' / asset).mkdir(parents=True)
        openpi(tmp_path / 'assets' / asset / 'norm_stats.json')
    with pytest.raises(BundleError, match='several data sets: assets/droid/.*mine/.*--stats'):
        find_statistics(tmp_path)
    openpi(tmp_path / 'norm_stats.json')
    assert find_statistics(tmp_path) == tmp_path / 'norm_stats.json'
