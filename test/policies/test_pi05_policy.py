"""The nano policy from frames to actions, without torch."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from observations import STATE, frame, noise, observe

from vla_trt_ros.bundle import open_bundle, sha256_of
from vla_trt_ros.config import StageChoice, load_platform
from vla_trt_ros.errors import (
    BackendError,
    BadImage,
    BadPrompt,
    BadState,
    BundleError,
    ConfigError,
)
from vla_trt_ros.policies.pi05.spec import NANO
from vla_trt_ros.policies.registry import load_policy_from

GOLDEN = {
    1: [0.043359, -0.023314, 0.039891, 0.514774],
    10: [0.04779, -0.024067, 0.055497, 0.509314],
}
"""First row of the actions; a changed export, bundle or preprocessing shows here."""


def actions(policy, observation=None, *, num_steps=10, seed=0):
    return policy.infer(observation or observe(), num_steps=num_steps, noise=noise(seed)).actions


def normalized(policy, values):
    """Actions in the network's units, so that metres and ratios compare."""
    return (values - policy._unnormalize._offset) / policy._unnormalize._scale


@pytest.mark.parametrize('num_steps', GOLDEN)
def test_golden(policy, num_steps):
    wave = (1.5 * np.sin(0.7 * np.arange(320))).astype(np.float32).reshape(10, 32)
    result = policy.infer(observe(), num_steps=num_steps, noise=wave)
    np.testing.assert_allclose(result.actions[0], GOLDEN[num_steps], atol=1e-4)


@pytest.mark.parametrize('num_steps', [1, 2, 3, 5, 10])
def test_actions_are_plausible(policy, num_steps):
    result = policy.infer(observe(), num_steps=num_steps, noise=noise())
    assert result.actions.shape == (10, 4)
    assert result.actions.dtype == np.float32
    unit = np.abs(normalized(policy, result.actions))
    assert 0.02 < unit.mean() < 1.5
    assert np.quantile(unit, 0.9) < 3.0
    assert result.prompt_tokens == 11
    assert result.times.engine_ms > 0.0
    assert result.times.preprocess_ms > 0.0


def test_same_input_same_actions(policy):
    np.testing.assert_array_equal(actions(policy), actions(policy))


@pytest.mark.parametrize(
    'other',
    [
        observe(base=frame(shift=9), wrist=frame(shift=40)),
        observe(base=frame(), wrist=frame(shift=49)),
        observe(prompt='open the door'),
        observe(prompt='reach the goal!'),
        observe(state=STATE + np.float32([0.02, 0, 0, 0])),
        observe(state=STATE * np.float32([1, 1, 1, 0])),
    ],
    ids=['base', 'wrist', 'prompt', 'punctuation', 'hand', 'gripper'],
)
def test_every_input_moves_the_actions(policy, other):
    change = normalized(policy, actions(policy)) - normalized(policy, actions(policy, other))
    assert np.abs(change).max() > 1e-4  # an input that is lost gives 0


def test_steps_and_noise_move_the_actions(policy):
    assert np.abs(actions(policy, num_steps=5) - actions(policy)).max() > 1e-5
    assert np.abs(actions(policy, seed=1) - actions(policy)).max() > 1e-5


def test_switching_steps_and_buckets_leaves_no_trace(policy):
    long = 'reach the goal ' * 10
    alone = {
        (prompt, n): actions(policy, observe(prompt), num_steps=n)
        for prompt in ('reach the goal', long)
        for n in policy.num_steps_available
    }
    order = list(alone) * 2
    np.random.default_rng(3).shuffle(order)
    for prompt, n in order:
        got = actions(policy, observe(prompt), num_steps=int(n))
        np.testing.assert_array_equal(got, alone[prompt, int(n)])
    assert policy.check_prompt(long) > policy.prompt_buckets[0]


def test_bucket_does_not_change_the_actions(policy):
    narrow, wide = (policy._engines.chains[bucket] for bucket in policy.prompt_buckets)
    short = actions(policy)
    # The same prompt by hand in the longer engine, all further tokens padding.
    wide.tokens[:] = 0
    wide.tokens[: narrow.tokens.size] = narrow.tokens
    wide.mask[:] = False
    wide.mask[: narrow.mask.size] = narrow.mask
    wide.prefix.enqueue()
    wide.denoise[10].enqueue()
    again = policy._unnormalize(policy._engines.actions[0, :, :4])
    np.testing.assert_allclose(again, short, atol=2e-6)


def test_masked_view_is_exact(policy):
    seen = actions(policy, observe(base=frame(), wrist=frame(shift=40)))
    masked = actions(policy, observe(base=frame()))
    assert np.abs(normalized(policy, seen) - normalized(policy, masked)).max() > 1e-3
    # Whatever lies in the masked view's pixels, nothing of it reaches the actions.
    pixels, chain = policy._engines.pixels, policy._engines.chains[policy.prompt_buckets[0]]
    pixels[1] = np.random.default_rng(0).uniform(-1, 1, pixels[1].shape)
    policy._engines.vision.enqueue()
    chain.prefix.enqueue()
    chain.denoise[10].enqueue()
    with_garbage = policy._unnormalize(policy._engines.actions[0, :, :4])
    np.testing.assert_array_equal(with_garbage, masked)


def test_padding_is_exact(policy):
    plain = actions(policy)
    chain = policy._engines.chains[policy.prompt_buckets[0]]
    chain.tokens[11:] = 700
    chain.prefix.enqueue()
    chain.denoise[10].enqueue()
    np.testing.assert_array_equal(policy._unnormalize(policy._engines.actions[0, :, :4]), plain)


def test_camera_that_no_view_uses_is_ignored(policy):
    with_more = observe(base=frame(), wrist=frame(shift=40), side=frame(shift=99))
    np.testing.assert_array_equal(actions(policy, with_more), actions(policy))


def test_large_frames_are_resized(policy):
    large = actions(policy, observe(base=frame(448), wrist=frame(448, shift=160)))
    assert np.isfinite(large).all()
    bgr = frame()
    swapped = bgr.data.reshape(112, 112, 3)[:, :, ::-1].ravel()
    as_bgr = replace(bgr, encoding='bgr8', data=np.ascontiguousarray(swapped))
    np.testing.assert_array_equal(
        actions(policy, observe(base=as_bgr, wrist=frame(shift=40))), actions(policy)
    )


def test_results_are_the_callers(policy):
    first = policy.infer(observe(), num_steps=1, noise=noise()).actions
    kept = first.copy()
    policy.infer(observe(), num_steps=1, noise=noise(1))
    np.testing.assert_array_equal(first, kept)


def test_noise_is_seeded_normal_float32(policy):
    def draw():
        policy.infer(observe(), num_steps=1)
        return policy._engines.noise.copy()

    policy.reseed(7)
    first, second = draw(), draw()
    policy.reseed(7)
    np.testing.assert_array_equal(draw(), first)
    assert np.abs(first - second).max() > 0.5
    assert first.dtype == np.float32
    assert abs(first.mean()) < 0.2
    assert 0.85 < first.std() < 1.15


def test_warm_up_leaves_the_noise_sequence(policy):
    policy.reseed(7)
    first = policy.infer(observe(), num_steps=2).actions
    policy.reseed(7)
    policy.warm_up()
    np.testing.assert_array_equal(policy.infer(observe(), num_steps=2).actions, first)


@pytest.mark.parametrize('num_steps', [0, 4, 11, -1])
def test_steps_that_are_not_there(policy, num_steps):
    with pytest.raises(ConfigError, match=rf'num_steps {num_steps} is not in this bundle, which'):
        policy.infer(observe(), num_steps=num_steps)


@pytest.mark.parametrize(
    ('prompt', 'message'),
    [('', 'is empty'), (' \n', 'is empty'), ('open the door ' * 50, r'makes \d+ tokens')],
)
def test_bad_prompts(policy, prompt, message):
    with pytest.raises(BadPrompt, match=message):
        policy.infer(observe(prompt), num_steps=1)
    with pytest.raises(BadPrompt, match=message):
        policy.check_prompt(prompt)


def test_prompt_in_other_scripts(policy):
    assert np.isfinite(actions(policy, observe('抓住门'))).all()
    assert policy.check_prompt('抓住门') > policy.check_prompt('reach')


@pytest.mark.parametrize(
    'state', [[0.1, 0.6, 0.2], [0.1, np.nan, 0.2, 1.0], [np.inf, 0.6, 0.2, 1.0], np.zeros((1, 4))]
)
def test_bad_state(policy, state):
    with pytest.raises(BadState, match=r'must be 4 finite numbers: hand_x, hand_y, hand_z, grip'):
        policy.infer(observe(state=state), num_steps=1)


def test_bad_image_and_then_a_good_one(policy):
    before = actions(policy)
    broken = replace(frame(), encoding='jpeg', step=0)
    with pytest.raises(BadImage):
        actions(policy, observe(base=broken, wrist=frame(shift=40)))
    np.testing.assert_array_equal(actions(policy), before)


def test_no_view_at_all(policy):
    with pytest.raises(BadImage, match='no view has a frame: the network looks at base, wrist'):
        policy.infer(observe(roof=frame()), num_steps=1)


def test_network_inputs_are_what_infer_writes(policy):
    seen = observe(base=frame(), prompt='push it')
    inputs = policy.network_inputs(seen, noise())
    policy.infer(seen, num_steps=1, noise=noise())
    engines = policy._engines
    chain = engines.chains[policy.prompt_buckets[0]]
    np.testing.assert_array_equal(inputs['pixels'], engines.pixels)
    np.testing.assert_array_equal(inputs['tokens'][0], chain.tokens)
    np.testing.assert_array_equal(inputs['prefix_mask'][0], chain.mask)
    np.testing.assert_array_equal(inputs['noise'], engines.noise)


def test_noise_of_another_shape(policy):
    with pytest.raises(ConfigError, match=r'noise has shape \[10, 4\], this policy draws'):
        policy.infer(observe(), num_steps=1, noise=np.ones((10, 4), np.float32))


def test_attributes(policy):
    assert policy.views == ('base', 'wrist')
    assert policy.image_size == (NANO.image_size, NANO.image_size)
    assert policy.horizon == NANO.horizon == 10
    assert policy.noise_shape == (10, 32)
    assert policy.num_steps_available == (1, 2, 3, 5, 10)
    assert policy.prompt_buckets == NANO.prompt_buckets
    assert policy.runtimes['denoise'] == 'onnxruntime fp32'


def test_null_backend_runs_the_whole_way(nano):
    null = StageChoice('null', 'fp32')
    platform = replace(load_platform('cpu'), vision=null, prefix=null, denoise=null)
    loaded = load_policy_from(nano, platform)
    loaded.warm_up()
    one = loaded.infer(observe(), num_steps=3).actions
    assert np.ptp(one) > 0.1
    np.testing.assert_array_equal(loaded.infer(observe(), num_steps=10).actions, one)
    loaded.close()
    loaded.close()
    with pytest.raises(BackendError, match='vision: the engine is closed'):
        loaded.infer(observe(), num_steps=3)


def test_platform_that_the_bundle_was_not_built_for(nano):
    with pytest.raises(BundleError, match='no vision engine for tensorrt fp16, only onnxruntime'):
        load_policy_from(nano, load_platform('orin'))


def changed(nano, tmp_path, change, **files):
    """A copy of nano with an edited manifest and replaced files, hashes put right."""
    folder = tmp_path / 'nano'
    shutil.copytree(nano.path, folder)
    manifest = json.loads((folder / 'manifest.json').read_text())
    change(manifest)
    for name, text in files.items():
        path = folder / f'{name}.json'
        path.write_text(text)
        manifest['files'][path.name] = {
            'sha256': sha256_of(path),
            'bytes': path.stat().st_size,
        }
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    return open_bundle(folder)


LONG = NANO.prompt_buckets[-1]


def drop_engine(manifest):
    gone = (LONG, 3)
    manifest['engines'] = [
        e for e in manifest['engines'] if (e.get('prompt_bucket'), e.get('num_steps')) != gone
    ]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda m: m.update(family='smolvla'), "of family 'smolvla'; this release knows pi05"),
        (lambda m: m['config'].update(horizon=20), r'noise float32\[1, 10, 32\].* are not those'),
        (lambda m: m['config'].update(horizont=20), "unknown key 'horizont'; did you mean"),
        (lambda m: m['config'].update(action_dim=3), 'do not fit the network, which has 3'),
        (
            lambda m: m['config'].update(prompt_buckets=[*m['config']['prompt_buckets'], 96]),
            'lacks the prefix engine for 96',
        ),
        (
            lambda m: m['config'].update(vocab_size=500),
            r'has \d+ pieces, the network embeds 500',
        ),
        (drop_engine, f'lacks the denoise engine for {LONG} prompt tokens and 3 steps'),
        (lambda m: m['layout']['state'].append('hand_x'), 'layout has 5 entries'),
    ],
)
def test_bundle_that_contradicts_itself(nano, tmp_path, change, message):
    with pytest.raises(BundleError, match=message):
        load_policy_from(changed(nano, tmp_path, change), load_platform('cpu'))


def test_statistics_that_are_not_finite(nano, tmp_path):
    text = nano.file('norm_stats.json').read_text().replace('1.0', 'NaN', 1)
    bundle = changed(nano, tmp_path, lambda m: None, norm_stats=text)
    with pytest.raises(BundleError, match='is not finite'):
        load_policy_from(bundle, load_platform('cpu'))
