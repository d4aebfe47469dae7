"""A checkpoint of one's own: written, read back, refused."""

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip('torch', reason="workshop only: pip install '.[export]'")
pytest.importorskip('safetensors', reason="workshop only: pip install '.[export]'")

import numpy as np  # noqa: E402
from random_checkpoints import TINY  # noqa: E402

from vla_trt_ros.errors import BundleError, ConfigError  # noqa: E402
from vla_trt_ros.export.pi05.checkpoint import open_checkpoint  # noqa: E402
from vla_trt_ros.export.pi05.checkpoint_folder import write_checkpoint  # noqa: E402
from vla_trt_ros.export.pi05.metadata import derive_config, read_metadata  # noqa: E402
from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.export.stats import find_statistics  # noqa: E402
from vla_trt_ros.policies.pi05.spec import NANO  # noqa: E402
from vla_trt_ros.preprocess.normalize import NormStats, load_norm_stats  # noqa: E402

OWN = replace(TINY, prompt_state='padded')


def stats(start):
    rows = np.arange(4) * 0.25 + start
    return NormStats(rows, rows * 0 + 0.5, rows - 1, rows + 1.5)


STATS = {'state': stats(0.0), 'actions': stats(1.0)}


@pytest.fixture
def weights():
    return {name: p.detach() for name, p in random_model(OWN, seed=3).state_dict().items()}


def write(folder, weights, **other):
    given = {'robot': 'metaworld', 'norm_stats': STATS, 'vocabulary': b'words', **other}
    return write_checkpoint(folder, OWN, weights, **given)


def test_what_is_written_is_read(weights, tmp_path):
    halves = {n: w.half() for n, w in weights.items()}
    folder = write(tmp_path / 'new' / 'run', halves)
    metadata = read_metadata(folder)
    config = derive_config(NANO, metadata, views=OWN.views)
    assert config == OWN
    checkpoint = open_checkpoint(folder, config)
    for name, half in halves.items():
        stored = checkpoint.load(name)
        assert stored.dtype == torch.float32
        torch.testing.assert_close(stored, half.float(), atol=0, rtol=0)
    path = find_statistics(folder)
    assert path.relative_to(folder).as_posix() == 'assets/metaworld/norm_stats.json'
    found = load_norm_stats(path, {'state': 4, 'actions': 4})
    np.testing.assert_array_equal(found['actions'].q99, STATS['actions'].q99)
    assert (folder / 'tokenizer.model').read_bytes() == b'words'


def test_all_that_is_wrong_is_listed_and_nothing_written(weights, tmp_path):
    del weights['time_mlp_in.bias']
    weights['more.weight'] = torch.zeros(2)
    weights['action_out_proj.bias'] = torch.zeros(9)
    weights['expert.norm.dense.bias'][3] = float('inf')
    with pytest.raises(BundleError) as told:
        write(tmp_path / 'run', weights)
    for line in (
        '4 weights do not fit',
        'missing: time_mlp_in.bias [8]',
        'extra: more.weight [2]',
        'shape: action_out_proj.bias is [9], not [8]',
        'not finite: expert.norm.dense.bias',
    ):
        assert line in str(told.value)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'horizn': 5}, r"network: unknown key 'horizn'; .* Write the checkpoint again"),
        ({'patch': 13}, 'image_size 28 is not a multiple of patch 13'),
        ({'horizon': 6}, 'action_horizon and action_dim are 5 and 8, its network says 6 and 8'),
    ],
)
def test_sizes_that_make_no_network(weights, tmp_path, change, match):
    path = write(tmp_path / 'run', weights) / 'config.json'
    data = json.loads(path.read_text())
    data['network'].update(change)
    path.write_text(json.dumps(data))
    with pytest.raises(BundleError, match=match):
        read_metadata(path.parent)


def test_more_views_than_it_was_trained_with(weights, tmp_path):
    metadata = read_metadata(write(tmp_path / 'run', weights))
    with pytest.raises(ConfigError, match=r'3 views \(a, b, c\), but .* trained with 2'):
        derive_config(NANO, metadata, views=('a', 'b', 'c'))
