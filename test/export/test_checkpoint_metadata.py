"""config.json of a checkpoint, and the network that follows from it."""

import json

import pytest

torch = pytest.importorskip('torch', reason="workshop only: pip install '.[export]'")

from vla_trt_ros.errors import BundleError, ConfigError  # noqa: E402
from vla_trt_ros.export.pi05.metadata import derive_config, read_metadata  # noqa: E402
from vla_trt_ros.policies.pi05.spec import PI05  # noqa: E402

VIEWS = ('base', 'left_wrist', 'right_wrist')


def config(folder, **entries):
    (folder / 'config.json').write_text(json.dumps(entries))
    return folder


def lerobot(folder, **entries):
    features = {
        f'observation.images.{name}': {'type': 'VISUAL', 'shape': [3, 224, 224]}
        for name in ('top', 'hand', 'empty_camera_0')
    }
    features['observation.state'] = {'type': 'STATE', 'shape': [6]}
    entries = {'type': 'pi05', 'chunk_size': 30, 'input_features': features, **entries}
    return config(folder, **entries)


def test_openpi(tmp_path):
    config(tmp_path, action_dim=32, action_horizon=15, paligemma_variant='gemma_2b')
    found = read_metadata(tmp_path)
    assert (found.horizon, found.action_dim, found.views) == (15, 32, None)
    derived = derive_config(PI05, found, views=VIEWS[:2])
    assert (derived.horizon, derived.views, derived.prompt_state) == (15, VIEWS[:2], 'real')


def test_lerobot(tmp_path):
    mapping = {'STATE': 'MEAN_STD', 'ACTION': 'QUANTILES', 'VISUAL': 'IDENTITY'}
    found = read_metadata(lerobot(tmp_path, normalization_mapping=mapping))
    assert (found.horizon, found.views, found.actions) == (30, 2, 'absolute')
    assert found.modes == {'state': 'MEAN_STD', 'actions': 'QUANTILES'}
    assert derive_config(PI05, found, views=VIEWS[:2]).prompt_state == 'padded'
    assert read_metadata(lerobot(tmp_path, use_relative_actions=True)).actions == 'delta'


@pytest.mark.parametrize('views', [1, 2, 3])
@pytest.mark.parametrize('horizon', [10, 15, 50])
@pytest.mark.parametrize('state', ['none', 'real'])
def test_derivatives(tmp_path, views, horizon, state):
    derived = derive_config(
        PI05,
        read_metadata(tmp_path),
        views=VIEWS[:views],
        horizon=horizon,
        num_steps=(1, 10),
        buckets=(16, 200),
        prompt_state=state,
    )
    assert derived.image_tokens == 256 * views
    assert (derived.horizon, derived.prompt_state) == (horizon, state)
    assert (derived.num_steps, derived.prompt_buckets) == ((1, 10), (16, 200))


def test_unknown_horizon_and_wrong_horizon(tmp_path):
    with pytest.raises(ConfigError, match='how many rows a chunk has: give --horizon'):
        derive_config(PI05, read_metadata(tmp_path), views=VIEWS)
    with pytest.raises(ConfigError, match='--horizon 50, but the checkpoint .* with 30'):
        derive_config(PI05, read_metadata(lerobot(tmp_path)), views=VIEWS[:1], horizon=50)


def test_wrong_number_of_views(tmp_path):
    with pytest.raises(ConfigError, match=r'4 views; Pi0.5 takes 1 to 3'):
        derive_config(PI05, None, views=(*VIEWS, 'rear'))
    with pytest.raises(ConfigError, match='3 views .* was trained with 2; choose'):
        derive_config(PI05, read_metadata(lerobot(tmp_path)), views=VIEWS)


@pytest.mark.parametrize(
    ('entries', 'match'),
    [
        ({'type': 'pi0'}, "this is a 'pi0' policy; only pi05"),
        ({'type': 'pi05', 'use_visual_memory': True}, 'use_visual_memory is on'),
        ({'paligemma_variant': 'gemma_2b_lora'}, 'merge them first'),
        ({'action_expert_variant': 'gemma_2b'}, "'gemma_2b'; only gemma_300m is supported"),
        ({'action_horizon': 0}, 'action_horizon is 0; expected a number above 0'),
        ({'type': 'pi05', 'normalization_mapping': {'STATE': 'IDENTITY'}}, 'STATE: normalisation'),
    ],
)
def test_other_networks_are_refused(tmp_path, entries, match):
    with pytest.raises(BundleError, match=match):
        read_metadata(config(tmp_path, **entries))


@pytest.mark.parametrize(('text', 'match'), [('{', 'cannot be read'), ('[]', 'a mapping')])
def test_malformed(tmp_path, text, match):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(BundleError, match=match):
        read_metadata(tmp_path)
