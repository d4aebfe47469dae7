"""Random checkpoints in the layouts of both reference implementations."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from stats_files import numbers

from vla_trt_ros.export.pi05.checkpoint_writer import checkpoint_tensors, write_weights
from vla_trt_ros.export.pi05.layouts import KeyLayout
from vla_trt_ros.export.pi05.model import Pi05
from vla_trt_ros.policies.pi05.spec import (
    ExpertConfig,
    Pi05Config,
    PrefixConfig,
    VisionConfig,
)

TINY = Pi05Config(
    image_size=28,
    patch=14,
    views=('base', 'wrist'),
    vision=VisionConfig(width=12, depth=2, heads=2, mlp=20),
    prefix=PrefixConfig(width=16, depth=3, heads=4, kv_heads=1, head_dim=6, mlp=24),
    expert=ExpertConfig(width=8, mlp=10),
    vocab_size=800,
    prompt_buckets=(6, 9),
    horizon=5,
    action_dim=8,
    num_steps=(1, 2),
)


def tensors(model: Pi05, layout: KeyLayout) -> dict[str, torch.Tensor]:
    """Copies of all tensors of a checkpoint in ``layout``, to spoil."""
    made = checkpoint_tensors(model, layout)
    return {name: make().clone().contiguous() for name, make in made.items()}


def write_openpi(folder: Path, model: Pi05, *, joints: int = 4, asset: str = 'mine') -> Path:
    """What openpi's conversion script leaves: weights, config.json, assets."""
    write_weights(folder, model, 'openpi')
    config = {
        'action_dim': model.config.action_dim,
        'action_horizon': model.config.horizon,
        'paligemma_variant': 'gemma_2b',
        'action_expert_variant': 'gemma_300m',
        'precision': 'float32',
    }
    (folder / 'config.json').write_text(json.dumps(config))
    stats = {'norm_stats': {'state': numbers(joints), 'actions': numbers(joints, 1.0)}}
    assets = folder / 'assets' / asset
    assets.mkdir(parents=True)
    (assets / 'norm_stats.json').write_text(json.dumps(stats))
    return folder


def write_lerobot(
    folder: Path, model: Pi05, *, joints: int = 4, mode: str = 'QUANTILES', views: int = 2
) -> Path:
    """What LeRobot's training leaves in ``pretrained_model``."""
    write_weights(folder, model, 'lerobot')
    cameras = {
        f'observation.images.camera{i}': {'type': 'VISUAL', 'shape': [3, 224, 224]}
        for i in range(views)
    }
    config = {
        'type': 'pi05',
        'chunk_size': model.config.horizon,
        'max_action_dim': model.config.action_dim,
        'max_state_dim': model.config.action_dim,
        'tokenizer_max_length': 200,
        'input_features': {
            **cameras,
            'observation.state': {'type': 'STATE', 'shape': [joints]},
        },
        'output_features': {'action': {'type': 'ACTION', 'shape': [joints]}},
        'normalization_mapping': {'VISUAL': 'IDENTITY', 'STATE': mode, 'ACTION': mode},
    }
    (folder / 'config.json').write_text(json.dumps(config))
    stats = {'observation.state': numbers(joints), 'action': numbers(joints, 1.0)}
    flat = {
        f'{key}.{name}': torch.tensor(values, dtype=torch.float32)
        for key, columns in stats.items()
        for name, values in columns.items()
    }
    save_file(flat, folder / 'policy_preprocessor_step_2_normalizer_processor.safetensors')
    return folder
