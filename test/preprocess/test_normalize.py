import json

import numpy as np
import pytest

from vla_trt_ros.errors import BundleError
from vla_trt_ros.preprocess.normalize import (
    Normalize,
    NormStats,
    Unnormalize,
    load_norm_stats,
    save_norm_stats,
)

STATS = NormStats(
    mean=np.array([0.0, 0.6]),
    std=np.array([0.1, 0.2]),
    q01=np.array([-0.3, 0.4]),
    q99=np.array([0.3, 0.9]),
)
DIMS = {'state': 2, 'actions': 2}


def column(**changes):
    data = {'mean': [0.0, 0.6], 'std': [0.1, 0.2], 'q01': [-0.3, 0.4], 'q99': [0.3, 0.9]}
    return data | changes


def write(tmp_path, **state):
    path = tmp_path / 'norm_stats.json'
    path.write_text(json.dumps({'norm_stats': {'state': column(**state), 'actions': column()}}))
    return path


def test_quantiles_land_on_plus_and_minus_one():
    normalize = Normalize(STATS, 'quantiles')
    x = np.array([[-0.3, 0.4], [0.3, 0.9], [0.0, 0.65], [0.6, 1.15]], np.float32)
    out = normalize(x)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, [[-1, -1], [1, 1], [0, 0], [2, 2]], atol=1e-5)


def test_quantile_range_is_widened_by_a_millionth():
    still = NormStats(*(np.array([v]) for v in (0.5, 0.0, 0.5, 0.5)))
    out = Normalize(still, 'quantiles')(np.array([0.5, 0.5 + 1e-6], np.float32)[:, None])
    assert out[0, 0] == -1.0
    assert np.isfinite(out).all()


def test_matches_the_training_formula():
    x = np.random.default_rng(0).uniform(-1, 1, (10, 2))
    expected = (x - STATS.q01) / (STATS.q99 - STATS.q01 + 1e-6) * 2.0 - 1.0
    np.testing.assert_allclose(Normalize(STATS, 'quantiles')(x), expected, atol=1e-6)
    back = (expected + 1.0) / 2.0 * (STATS.q99 - STATS.q01 + 1e-6) + STATS.q01
    np.testing.assert_allclose(Unnormalize(STATS, 'quantiles')(expected), back, atol=1e-6)


def test_mean_std():
    out = Normalize(STATS, 'mean_std')(np.array([0.1, 1.0], np.float32))
    np.testing.assert_allclose(out, [1.0, 2.0], atol=1e-4)


@pytest.mark.parametrize('method', ['quantiles', 'mean_std'])
def test_round_trip(method):
    x = np.random.default_rng(1).uniform(-2, 2, (50, 2)).astype(np.float32)
    there = Normalize(STATS, method)(x)
    assert np.abs(there - x).max() > 0.1
    np.testing.assert_allclose(Unnormalize(STATS, method)(there), x, atol=1e-5)


def test_file_round_trip_and_cut_to_the_layout(tmp_path):
    path = tmp_path / 'norm_stats.json'
    save_norm_stats(path, {'state': STATS, 'actions': STATS})
    found = load_norm_stats(path, {'state': 2, 'actions': 1})
    np.testing.assert_array_equal(found['state'].q99, [0.3, 0.9])
    np.testing.assert_array_equal(found['actions'].q01, [-0.3])


@pytest.mark.parametrize(
    ('state', 'message'),
    [
        ({'q01': [0.1]}, r'state: q01 has shape \[1\], the layout has 2 entries; these are the'),
        ({'mean': [[0.0, 0.0]]}, r'mean has shape \[1, 2\]'),
        ({'std': [0.1, float('nan')]}, 'state: std is not finite'),
        ({'q99': [0.3, 0.2]}, 'q99 lies below q01'),
        ({'std': [0.1, -0.2]}, 'std below 0'),
        ({'q99': ['a', 'b']}, 'cannot be read'),
    ],
)
def test_bad_statistics(tmp_path, state, message):
    with pytest.raises(BundleError, match=message):
        load_norm_stats(write(tmp_path, **state), DIMS)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"norm_stats": {}}', "'state' is missing"),
        ('{}', "'norm_stats' is missing"),
        ('{"norm_stats": {"state": {"mean": [0, 1]}}}', "'std' is missing"),
        ('not json', 'cannot be read'),
        ('[]', 'cannot be read'),
    ],
)
def test_bad_file(tmp_path, text, message):
    path = tmp_path / 'norm_stats.json'
    path.write_text(text)
    with pytest.raises(BundleError, match=message):
        load_norm_stats(path, DIMS)


def test_missing_file(tmp_path):
    with pytest.raises(BundleError, match='cannot be read'):
        load_norm_stats(tmp_path / 'nowhere.json', DIMS)
