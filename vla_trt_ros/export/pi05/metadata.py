"""What a checkpoint's config.json says about the network beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vla_trt_ros.errors import BundleError, ConfigError
from vla_trt_ros.export.stats import Mode, parse_mode
from vla_trt_ros.policies.pi05.spec import Pi05Config, PromptState
from vla_trt_ros.strict_yaml import build

MAX_VIEWS = 3


@dataclass(frozen=True, slots=True)
class Metadata:
    """None: the checkpoint does not say."""

    origin: Literal['openpi', 'lerobot']
    horizon: int | None = None
    action_dim: int | None = None
    views: int | None = None
    """How many cameras it was trained with, empty ones left out."""
    modes: Mapping[str, Mode] | None = None
    """How 'state' and 'actions' are normalised."""
    actions: Literal['absolute', 'delta'] = 'delta'
    """Meaning of joint columns; grippers are absolute in either."""
    network: Pi05Config | None = None
    """All sizes, where config.json has them under ``network`` (checkpoint_folder.py)."""

    @property
    def prompt_state(self) -> PromptState:
        """How the state is written into the prompt: as the checkpoint says, else as the reference
        implementation does.
        """
        if self.network is not None:
            return self.network.prompt_state
        return 'padded' if self.origin == 'lerobot' else 'real'


def read_metadata(folder: Path) -> Metadata:
    """config.json of ``folder``; openpi's training leaves none. BundleError if it is of another
    policy, or of a variant that is not supported.
    """
    path = folder / 'config.json'
    if not path.is_file():
        return Metadata('openpi')
    try:
        data = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise BundleError(f'{path} cannot be read ({error}); copy it again.') from error
    if not isinstance(data, dict):
        raise BundleError(f'{path}: expected a mapping; copy it again.')
    for name, variant in (('paligemma', 'gemma_2b'), ('action_expert', 'gemma_300m')):
        found = data.get(f'{name}_variant', variant)
        if 'lora' in str(found):
            raise BundleError(
                f'{path}: {name}_variant is {found!r}: LoRA weights lie beside the others; merge '
                'them first and export the merged checkpoint.'
            )
        if found != variant:
            raise BundleError(f'{path}: {name}_variant is {found!r}; only {variant} is supported.')
    return _lerobot(data, path) if 'type' in data else _openpi(data, path)


def _openpi(data: dict[str, Any], path: Path) -> Metadata:
    horizon, action_dim = (_count(data, key, path) for key in ('action_horizon', 'action_dim'))
    network = _network(data['network'], path) if 'network' in data else None
    if network is not None:
        said = (horizon or network.horizon, action_dim or network.action_dim)
        if said != (network.horizon, network.action_dim):
            raise BundleError(
                f'{path}: action_horizon and action_dim are {said[0]} and {said[1]}, its network '
                f'says {network.horizon} and {network.action_dim}; write the checkpoint again.'
            )
        horizon, action_dim, views = network.horizon, network.action_dim, len(network.views)
        return Metadata('openpi', horizon, action_dim, views, network=network)
    return Metadata('openpi', horizon, action_dim)


def _network(data: object, path: Path) -> Pi05Config:
    try:
        return build(Pi05Config, data, f'{path}: network')
    except ConfigError as error:
        raise BundleError(f'{error} Write the checkpoint again.') from error


def _lerobot(data: dict[str, Any], path: Path) -> Metadata:
    if data['type'] != 'pi05':
        raise BundleError(f'{path}: this is a {data["type"]!r} policy; only pi05 is supported.')
    for option in ('use_visual_memory', 'use_proprioceptive_memory'):
        if data.get(option):
            raise BundleError(f'{path}: {option} is on; policies with a memory are not supported.')
    features = data.get('input_features') or {}
    views = [
        name
        for name, feature in features.items()
        if feature.get('type') == 'VISUAL' and 'empty_camera' not in name
    ]
    mapping = data.get('normalization_mapping') or {}
    return Metadata(
        'lerobot',
        horizon=_count(data, 'chunk_size', path),
        action_dim=_count(data, 'max_action_dim', path),
        views=len(views) or None,
        modes={
            'state': parse_mode(mapping.get('STATE', 'QUANTILES'), f'{path}: STATE'),
            'actions': parse_mode(mapping.get('ACTION', 'QUANTILES'), f'{path}: ACTION'),
        },
        actions='delta' if data.get('use_relative_actions') else 'absolute',
    )


def _count(data: dict[str, Any], key: str, path: Path) -> int | None:
    value = data.get(key)
    if value is not None and not (isinstance(value, int) and value > 0):
        raise BundleError(f'{path}: {key} is {value!r}; expected a number above 0.')
    return value


def derive_config(
    base: Pi05Config,
    metadata: Metadata | None,
    *,
    views: tuple[str, ...],
    horizon: int | None = None,
    num_steps: tuple[int, ...] | None = None,
    buckets: tuple[int, ...] | None = None,
    prompt_state: PromptState | None = None,
) -> Pi05Config:
    """The checkpoint's own sizes, else ``base``, with what the caller asks; ``metadata`` is None
    for random weights. ConfigError if the horizon is unknown or the views are not those of the
    checkpoint.
    """
    if not 1 <= len(views) <= MAX_VIEWS:
        raise ConfigError(
            f'{len(views)} views; Pi0.5 takes 1 to {MAX_VIEWS}: choose with --views.'
        )
    state, action_dim = base.prompt_state, base.action_dim
    if metadata is None:
        horizon = horizon or base.horizon
    else:
        base = metadata.network or base
        state, action_dim = metadata.prompt_state, metadata.action_dim or action_dim
        if horizon and metadata.horizon and horizon != metadata.horizon:
            raise ConfigError(
                f'--horizon {horizon}, but the checkpoint was trained with {metadata.horizon}.'
            )
        horizon = horizon or metadata.horizon
        if horizon is None:
            raise ConfigError(
                'the checkpoint does not say how many rows a chunk has: give --horizon (openpi: '
                'action_horizon of the training config; base 50, droid 15, libero 10).'
            )
        if metadata.views is not None and len(views) > metadata.views:
            raise ConfigError(
                f'{len(views)} views ({", ".join(views)}), but the checkpoint was trained with '
                f'{metadata.views}; choose them with --views, in its order.'
            )
    return replace(
        base,
        views=views,
        horizon=horizon,
        action_dim=action_dim,
        num_steps=num_steps or base.num_steps,
        prompt_buckets=buckets or base.prompt_buckets,
        prompt_state=prompt_state or state,
    )
