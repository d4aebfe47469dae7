"""Checkpoint weights -> the fewer, larger products that the fast stages run.

What a layer norm multiplies and adds by is folded into the product behind it, query, key and
value projections are one product, gate and up projections another. All of it is exact algebra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vla_trt_ros.policies.pi05.spec import Pi05Config

Load = Callable[[str], Tensor]
"""The tensor of a name of `export.pi05.model.Pi05`, on the device it should end on."""

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0


@dataclass(frozen=True, slots=True)
class Linear:
    """One product: ``input @ weight.T * scale * act_scale + bias``."""

    name: str
    weight: Tensor
    """[out, in], bfloat16, float32 or FP8."""
    bias: Tensor | None = None
    """[out]."""
    scale: Tensor | None = None
    """What a stored product is multiplied by: float32, one number or [out]."""
    act: float = 1.0
    """An FP8 input is stored divided by this, its quantum."""
    act_scale: Tensor | None = None
    """The quantum on the device, float32; 1 where ``scale`` has it already."""
    result: float = 0.0
    """An FP8 output is stored divided by this, which ``scale`` has in it; 0: it is not FP8."""

    @property
    def quantized(self) -> bool:
        """Whether weight and input are FP8."""
        return bool(self.weight.dtype == FP8)


@dataclass(frozen=True, slots=True)
class VisionLayer:
    """One SigLIP layer, layer norms folded."""

    qkv: Linear
    out: Linear
    fc1: Linear
    fc2: Linear


@dataclass(frozen=True, slots=True)
class GemmaLayer:
    """One layer of the prefix or of the expert; the last prefix layer has K and V only."""

    qkv: Linear
    """Rows: queries of all heads, keys, values."""
    out: Linear | None = None
    gate_up: Linear | None = None
    """Rows: of the prefix a gate and its up in turn, of the expert all gates, then all ups."""
    down: Linear | None = None


@dataclass(frozen=True, slots=True)
class FastWeights:
    """Everything that the stages read, but what depends on the number of steps (tables.py)."""

    config: Pi05Config
    patch: Linear
    position: Tensor
    """[tokens per view, vision width]: learned positions plus the patch bias."""
    vision: tuple[VisionLayer, ...]
    projector: Linear
    embedding: Tensor
    """[vocabulary, prefix width]."""
    prefix: tuple[GemmaLayer, ...]
    expert: tuple[GemmaLayer, ...]
    action_in: Linear
    action_out: Linear

    def linears(self) -> Iterator[Linear]:
        """Every product that may be quantised, in the order it runs."""
        for v in self.vision:
            yield from (v.qkv, v.out, v.fc1, v.fc2)
        yield self.projector
        for g in (*self.prefix, *self.expert):
            yield from (x for x in (g.qkv, g.out, g.gate_up, g.down) if x is not None)

    def replaced(self, change: Callable[[Linear], Linear]) -> FastWeights:
        """The same network with ``change`` applied to each of `linears`."""

        def gemma(layer: GemmaLayer) -> GemmaLayer:
            parts = {n: getattr(layer, n) for n in ('qkv', 'out', 'gate_up', 'down')}
            return GemmaLayer(**{n: change(x) for n, x in parts.items() if x is not None})

        return replace(
            self,
            vision=tuple(
                VisionLayer(change(v.qkv), change(v.out), change(v.fc1), change(v.fc2))
                for v in self.vision
            ),
            projector=change(self.projector),
            prefix=tuple(gemma(g) for g in self.prefix),
            expert=tuple(gemma(g) for g in self.expert),
        )


def fold(config: Pi05Config, load: Load, dtype: torch.dtype = torch.bfloat16) -> FastWeights:
    """Folded weights of the network whose parameters ``load`` returns by name.

    ``dtype`` is what products compute in; sums and folding are float32 throughout.
    """

    def get(name: str) -> Tensor:
        return load(name).detach().float()

    def linear(name: str, weight: Tensor, bias: Tensor | None = None) -> Linear:
        kept = None if bias is None else bias.to(dtype).contiguous()
        return Linear(name, weight.to(dtype).contiguous(), kept)

    patch, positions = _patch(config, get)
    tower = 'vision_tower.post_layernorm'
    projector = get('multi_modal_projector.linear.weight')
    return FastWeights(
        config=config,
        patch=linear('patch', patch),
        position=positions.to(dtype),
        vision=tuple(_vision_layer(i, get, linear) for i in range(config.vision.depth)),
        projector=linear(
            'projector',
            projector * get(f'{tower}.weight'),
            get('multi_modal_projector.linear.bias') + projector @ get(f'{tower}.bias'),
        ),
        embedding=load('language_model.embed_tokens.weight').detach().to(dtype),
        prefix=tuple(_prefix_layer(config, i, get, linear) for i in range(config.depth)),
        expert=tuple(_expert_layer(i, get, linear) for i in range(config.depth)),
        action_in=Linear(
            'action_in', get('action_in_proj.weight').contiguous(), get('action_in_proj.bias')
        ),
        action_out=linear(
            'action_out', get('action_out_proj.weight'), get('action_out_proj.bias')
        ),
    )


_Make = Callable[..., Linear]


def _patch(config: Pi05Config, get: Load) -> tuple[Tensor, Tensor]:
    name = 'vision_tower.embeddings'
    weight = get(f'{name}.patch_embedding.weight').flatten(1)
    positions = get(f'{name}.position_embedding.weight')
    width = patch_columns(config)
    weight = torch.nn.functional.pad(weight, (0, width - weight.shape[1]))
    return weight, positions + get(f'{name}.patch_embedding.bias')


def patch_columns(config: Pi05Config) -> int:
    """Numbers in a patch, rounded up to a multiple of 16."""
    return -(-3 * config.patch**2 // 16) * 16


def _vision_layer(i: int, get: Load, linear: _Make) -> VisionLayer:
    name = f'vision_tower.encoder.layers.{i}'

    def after_norm(label: str, norm: str, parts: list[str]) -> Linear:
        weight = torch.cat([get(f'{name}.{p}.weight') for p in parts])
        bias = torch.cat([get(f'{name}.{p}.bias') for p in parts])
        scale, shift = get(f'{name}.{norm}.weight'), get(f'{name}.{norm}.bias')
        return linear(f'vision.{i}.{label}', weight * scale, bias + weight @ shift)

    def plain(label: str, part: str) -> Linear:
        weight, bias = get(f'{name}.{part}.weight'), get(f'{name}.{part}.bias')
        return linear(f'vision.{i}.{label}', weight, bias)

    heads = [f'self_attn.{p}_proj' for p in 'qkv']
    return VisionLayer(
        after_norm('qkv', 'layer_norm1', heads),
        plain('out', 'self_attn.out_proj'),
        after_norm('fc1', 'layer_norm2', ['mlp.fc1']),
        plain('fc2', 'mlp.fc2'),
    )


def _prefix_layer(config: Pi05Config, i: int, get: Load, linear: _Make) -> GemmaLayer:
    name = f'language_model.layers.{i}'
    last = i == config.depth - 1
    heads = get(f'{name}.input_layernorm.weight') + 1.0
    parts = 'kv' if last else 'qkv'
    qkv = torch.cat([get(f'{name}.self_attn.{p}_proj.weight') for p in parts])
    joined = linear(f'prefix.{i}.qkv', qkv * heads)
    if last:
        return GemmaLayer(joined)
    mlp = get(f'{name}.post_attention_layernorm.weight') + 1.0
    gate_up = torch.stack([get(f'{name}.mlp.{p}_proj.weight') for p in ('gate', 'up')], dim=1)
    return GemmaLayer(
        joined,
        linear(f'prefix.{i}.out', get(f'{name}.self_attn.o_proj.weight')),
        linear(f'prefix.{i}.gate_up', gate_up.flatten(0, 1) * mlp),
        linear(f'prefix.{i}.down', get(f'{name}.mlp.down_proj.weight')),
    )


def _expert_layer(i: int, get: Load, linear: _Make) -> GemmaLayer:
    name = f'expert.layers.{i}'
    qkv = torch.cat([get(f'{name}.self_attn.{p}_proj.weight') for p in 'qkv'])
    gate_up = torch.cat([get(f'{name}.mlp.{p}_proj.weight') for p in ('gate', 'up')])
    return GemmaLayer(
        linear(f'expert.{i}.qkv', qkv),
        linear(f'expert.{i}.out', get(f'{name}.self_attn.o_proj.weight')),
        linear(f'expert.{i}.gate_up', gate_up),
        linear(f'expert.{i}.down', get(f'{name}.mlp.down_proj.weight')),
    )
