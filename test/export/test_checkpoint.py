"""Published checkpoints: both layouts load to the same network, and every bad one is refused."""

import json

import pytest

torch = pytest.importorskip('torch', reason="workshop only: pip install '.[export]'")
pytest.importorskip('safetensors', reason="workshop only: pip install '.[export]'")

from random_checkpoints import TINY, tensors  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from vla_trt_ros.errors import BundleError  # noqa: E402
from vla_trt_ros.export.pi05.checkpoint import open_checkpoint  # noqa: E402
from vla_trt_ros.export.pi05.checkpoint_writer import write_weights  # noqa: E402
from vla_trt_ros.export.pi05.layouts import LAYOUTS, TIED_HEAD, our_name  # noqa: E402
from vla_trt_ros.export.pi05.parameters import load_model  # noqa: E402
from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402

LAYER = 'paligemma_with_expert.paligemma.model.language_model.layers.1'


@pytest.fixture(scope='module')
def model():
    return random_model(TINY, seed=3)


def save(folder, held):
    folder.mkdir(exist_ok=True)
    save_file(held, folder / 'model.safetensors')
    return folder


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_checkpoint_loads_to_the_network_that_was_written(model, tmp_path, layout):
    checkpoint = open_checkpoint(write_weights(tmp_path, model, layout), TINY)
    assert checkpoint.layout == layout
    loaded = load_model(checkpoint, torch.float32)
    for (name, a), (other, b) in zip(
        model.named_parameters(), loaded.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(a, b), name


def test_both_layouts_give_identical_actions(model, tmp_path):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 28, 28, generator=generator) * 2 - 1
    noise = torch.randn(1, 5, 8, generator=generator)
    tokens, mask = torch.tensor([[2, 7, 30, 4, 0, 0]]), torch.ones(1, 14, dtype=torch.bool)
    mask[0, 12:] = False
    actions = []
    for layout in LAYOUTS:
        folder = write_weights(tmp_path / layout, model, layout)
        loaded = load_model(open_checkpoint(folder, TINY), torch.bfloat16)
        with torch.no_grad():
            actions.append(loaded.sample_actions(pixels, tokens, mask, noise, 3))
    assert torch.equal(*actions)
    assert (actions[0] - noise).abs().max() > 0.1


def test_newer_transformers_leave_out_a_level(model, tmp_path):
    held = {k.replace('.vision_model.', '.'): v for k, v in tensors(model, 'openpi').items()}
    checkpoint = open_checkpoint(save(tmp_path, held), TINY)
    name = 'vision_tower.encoder.layers.1.mlp.fc1.weight'
    assert torch.equal(checkpoint.load(name), dict(model.named_parameters())[name])


def test_the_embedding_has_two_names(model, tmp_path):
    held = tensors(model, 'lerobot')
    embedding = f'model.{TIED_HEAD}'.replace('lm_head', 'model.language_model.embed_tokens')
    assert {embedding, f'model.{TIED_HEAD}'} <= set(held)
    del held[f'model.{TIED_HEAD}']
    checkpoint = open_checkpoint(save(tmp_path, held), TINY)
    assert torch.equal(
        checkpoint.load('language_model.embed_tokens.weight'),
        model.language_model.embed_tokens.weight,
    )


def test_a_sharded_checkpoint(model, tmp_path):
    held = sorted(tensors(model, 'lerobot').items())
    weight_map = {}
    for i, part in enumerate((held[::2], held[1::2])):
        file = f'model-0000{i + 1}-of-00002.safetensors'
        save_file(dict(part), tmp_path / file)
        weight_map |= {name: file for name, _ in part}
    index = {'metadata': {}, 'weight_map': weight_map}
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(index))
    loaded = load_model(open_checkpoint(tmp_path, TINY), torch.float32)
    assert torch.equal(loaded.action_in_proj.weight, model.action_in_proj.weight)


def test_everything_that_does_not_fit_is_listed_at_once(model, tmp_path):
    held = tensors(model, 'openpi')
    del held['action_out_proj.bias'], held[f'{LAYER}.mlp.up_proj.weight']
    held['time_mlp_in.weight'] = torch.zeros(8, 9)
    held['proprio_history_proj.weight'] = torch.zeros(2)
    with pytest.raises(BundleError) as error:
        open_checkpoint(save(tmp_path, held), TINY)
    text = str(error.value)
    assert '(4 tensors)' in text
    assert text.splitlines()[1:] == [
        '  extra: proprio_history_proj.weight [2]',
        '  missing: action_out_proj.bias [8]',
        f'  missing: {LAYER}.mlp.up_proj.weight [24, 16]',
        '  shape: time_mlp_in.weight is [8, 9], not [8, 8]',
    ]


def test_unread_weights_may_be_missing_but_not_of_another_network(model, tmp_path):
    held = tensors(model, 'openpi')
    name = 'paligemma_with_expert.paligemma.model.language_model.norm.weight'
    del held[name]
    open_checkpoint(save(tmp_path / 'without', held), TINY)
    held[name] = torch.zeros(17)
    with pytest.raises(BundleError, match=r'language_model.norm.weight is \[17\], not \[16\]'):
        open_checkpoint(save(tmp_path / 'wrong', held), TINY)


def test_mixed_layouts_are_refused(model, tmp_path):
    held = tensors(model, 'openpi')
    held['model.time_mlp_in.weight'] = held.pop('time_mlp_in.weight')
    with pytest.raises(BundleError, match=r"mixes two layouts: .* LeRobot's; export"):
        open_checkpoint(save(tmp_path, held), TINY)


def test_a_pi0_checkpoint_is_refused(model, tmp_path):
    held = {**tensors(model, 'openpi'), 'state_proj.weight': torch.zeros(2, 2)}
    with pytest.raises(BundleError, match=r'is a Pi0 checkpoint: it has .state_proj.weight'):
        open_checkpoint(save(tmp_path, held), TINY)


def test_another_network_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r'in neither .* layout; it holds transformer.h.0'):
        open_checkpoint(save(tmp_path, {'transformer.h.0': torch.zeros(2)}), TINY)


@pytest.mark.parametrize('name', ['q_proj.lora_A.default.weight', 'q_proj.base_layer.weight'])
def test_lora_that_is_not_merged_is_refused(model, tmp_path, name):
    held = {**tensors(model, 'lerobot'), f'model.{LAYER}.self_attn.{name}': torch.zeros(2, 2)}
    with pytest.raises(BundleError, match='LoRA weights that are not merged.*merge_and_unload'):
        open_checkpoint(save(tmp_path, held), TINY)


def test_a_lora_adapter_alone_is_refused(tmp_path):
    (tmp_path / 'adapter_model.safetensors').write_bytes(b'')
    with pytest.raises(BundleError, match='holds a LoRA adapter alone; merge it'):
        open_checkpoint(tmp_path, TINY)


@pytest.mark.parametrize('keep', [0.9, 0.01])
def test_a_truncated_file_is_refused(model, tmp_path, keep):
    path = write_weights(tmp_path, model, 'openpi') / 'model.safetensors'
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(BundleError, match='model.safetensors is truncated or no safetensors'):
        open_checkpoint(tmp_path, TINY)


def test_every_tensor_with_nan_is_named(model, tmp_path):
    held = {k: v.clone() for k, v in tensors(model, 'lerobot').items()}
    held['model.time_mlp_in.bias'][3] = float('nan')
    held[f'model.{LAYER}.mlp.up_proj.weight'][0, :2] = float('inf')
    checkpoint = open_checkpoint(save(tmp_path, held), TINY)
    with pytest.raises(BundleError, match='holds NaN or Inf') as error:
        checkpoint.check_finite()
    assert sorted(str(error.value).splitlines()[1:]) == [
        f'  model.{LAYER}.mlp.up_proj.weight: 2 of 384',
        '  model.time_mlp_in.bias: 1 of 8',
    ]
    open_checkpoint(write_weights(tmp_path / 'good', model, 'openpi'), TINY).check_finite()


@pytest.mark.parametrize('file', ['params/_METADATA', 'params/manifest.ocdbt', '_METADATA'])
def test_a_jax_checkpoint_names_the_conversion(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text('{}')
    with pytest.raises(BundleError, match='convert_jax_model_to_pytorch.py --checkpoint_dir'):
        open_checkpoint(tmp_path, TINY)


def test_an_empty_folder_and_no_folder(tmp_path):
    with pytest.raises(BundleError, match='holds no model.safetensors; give the folder'):
        open_checkpoint(tmp_path, TINY)
    with pytest.raises(BundleError, match='nowhere is no folder'):
        open_checkpoint(tmp_path / 'nowhere', TINY)


def test_an_index_that_leads_away_is_refused(tmp_path):
    index = tmp_path / 'model.safetensors.index.json'
    index.write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(BundleError, match='which lies outside the folder'):
        open_checkpoint(tmp_path, TINY)
    index.write_text('{"weight_map"')
    with pytest.raises(BundleError, match='cannot be read'):
        open_checkpoint(tmp_path, TINY)


def test_names_of_other_modules_are_not_ours():
    assert our_name('action_in_proj.weight') == 'action_in_proj.weight'
    assert our_name('model.action_in_proj.weight') == 'action_in_proj.weight'
    assert our_name('normalize_inputs.buffer') is None
