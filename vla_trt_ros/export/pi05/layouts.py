"""Names of the published checkpoints' tensors, and ours.

Two layouts are known. openpi's PyTorch port writes bare names, LeRobot writes the same ones behind
``model.``; LeRobot also reads and re-publishes the bare ones. Newer `transformers` leave out
the ``vision_model.`` level in either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from vla_trt_ros.errors import BundleError
from vla_trt_ros.policies.pi05.spec import Pi05Config

KeyLayout = Literal['openpi', 'lerobot']
LAYOUTS: tuple[KeyLayout, ...] = ('openpi', 'lerobot')
LEROBOT_PREFIX = 'model.'

_PALIGEMMA = 'paligemma_with_expert.paligemma.'
_EXPERT = 'paligemma_with_expert.gemma_expert.'
# Published prefix to ours; the first that fits counts.
_PREFIXES = (
    (f'{_PALIGEMMA}model.vision_tower.vision_model.', 'vision_tower.'),
    (f'{_PALIGEMMA}model.vision_tower.', 'vision_tower.'),
    (f'{_PALIGEMMA}model.multi_modal_projector.', 'multi_modal_projector.'),
    (f'{_PALIGEMMA}model.language_model.', 'language_model.'),
    (f'{_EXPERT}model.', 'expert.'),
)
_OWN = ('action_in_proj.', 'action_out_proj.', 'time_mlp_in.', 'time_mlp_out.')

EMBEDDING = 'language_model.embed_tokens.weight'
TIED_HEAD = f'{_PALIGEMMA}lm_head.weight'
"""One tensor under two names. A writer that keeps one name keeps this, the first in the
alphabet: lerobot/pi05_base has no ``embed_tokens``.
"""


def key_layout(names: Iterable[str], where: str) -> KeyLayout:
    """Which layout tensor ``names`` are in.

    BundleError for both at once, for neither, for a Pi0 checkpoint and for unmerged LoRA weights.
    """
    bare: list[str] = []
    prefixed: list[str] = []
    for name in names:
        stem = name.removeprefix(LEROBOT_PREFIX)
        if stem.startswith((_PALIGEMMA, _EXPERT, *_OWN)):
            (bare if stem == name else prefixed).append(name)
        if stem.startswith(('state_proj.', 'action_time_mlp_')):
            raise BundleError(
                f'{where} is a Pi0 checkpoint: it has {name!r}; only Pi0.5 is supported.'
            )
    if bare and prefixed:
        raise BundleError(
            f"{where} mixes two layouts: {bare[0]!r} is openpi's, {prefixed[0]!r} LeRobot's; "
            'export the checkpoint as one of them wrote it.'
        )
    if not bare and not prefixed:
        some = ', '.join(sorted(names)[:3]) or 'nothing'
        raise BundleError(
            f"{where} is in neither openpi's nor LeRobot's Pi0.5 layout; it holds {some}, ..."
        )
    return 'lerobot' if prefixed else 'openpi'


def our_name(published: str) -> str | None:
    """The parameter of `Pi05` that a tensor is, or None for a tensor that it does not know.

    The name may be of a weight that `Pi05` leaves out, see `is_unread`.
    """
    stem = published.removeprefix(LEROBOT_PREFIX)
    if stem.startswith(_OWN):
        return stem
    for prefix, ours in _PREFIXES:
        if stem.startswith(prefix):
            return ours + stem.removeprefix(prefix)
    return None


def published_name(ours: str, layout: KeyLayout) -> str:
    """The name under which the reference implementation of ``layout`` stores a parameter."""
    name = ours
    for prefix, own in _PREFIXES:
        if ours.startswith(own):
            name = prefix + ours.removeprefix(own)
            break
    return (LEROBOT_PREFIX if layout == 'lerobot' else '') + name


def unread_shapes(config: Pi05Config) -> dict[str, tuple[int, ...]]:
    """Tensors (openpi's names) that a checkpoint holds and that no action depends on.

    The prefix hands on keys and values alone, so its last layer ends there; the expert is asked
    for no words.
    """
    prefix, width = config.prefix, config.prefix.width
    last = f'language_model.layers.{prefix.depth - 1}'
    ours = {
        f'{last}.mlp.gate_proj.weight': (prefix.mlp, width),
        f'{last}.mlp.up_proj.weight': (prefix.mlp, width),
        f'{last}.mlp.down_proj.weight': (width, prefix.mlp),
        f'{last}.post_attention_layernorm.weight': (width,),
        'language_model.norm.weight': (width,),
    }
    found = {published_name(name, 'openpi'): shape for name, shape in ours.items()}
    found[f'{_EXPERT}lm_head.weight'] = (config.vocab_size, config.expert.width)
    found[f'{_EXPERT}model.embed_tokens.weight'] = (config.vocab_size, config.expert.width)
    return found


def is_unread(published: str, config: Pi05Config) -> bool:
    """Whether a tensor is one of `unread_shapes`."""
    return published.removeprefix(LEROBOT_PREFIX) in unread_shapes(config)


def lora_names(names: Iterable[str]) -> list[str]:
    """Tensors of a LoRA adapter that was not merged."""
    return [n for n in names if re.search(r'\blora_|\.lora|base_layer\.|_lora_', n)]
