"""Pi0.5 in plain PyTorch, any size: written to be read and checked, not to be fast.

Submodules are named as in the published checkpoints, less the wrappers around them:
``vision_tower`` and ``language_model`` are PaliGemma's, ``expert`` is the action expert.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_trt_ros.export.pi05.layers import (
    AdaRMSNorm,
    GatedMLP,
    GroupedAttention,
    RMSNorm,
    attention_bias,
    rope_table,
    time_embedding,
)
from vla_trt_ros.export.pi05.siglip import Projector, SiglipVision
from vla_trt_ros.policies.pi05.spec import Pi05Config, euler_times


class Pi05(nn.Module):
    """The whole network; shapes are spec.py's.

    Weights may be of any dtype that `parameters.parameter_dtype` gives them: the residual streams
    then have that dtype, while norms, rotary embedding, latent and modulation stay float32.
    """

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        self.config = config
        width = config.expert.width
        self.vision_tower = SiglipVision(config)
        self.multi_modal_projector = Projector(config)
        self.language_model = GemmaPrefix(config)
        self.expert = ActionExpert(config)
        self.action_in_proj = nn.Linear(config.action_dim, width)
        self.action_out_proj = nn.Linear(width, config.action_dim)
        self.time_mlp_in = nn.Linear(width, width)
        self.time_mlp_out = nn.Linear(width, width)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Pixels [V, 3, S, S] -> image tokens [1, V * T, prefix width]."""
        tokens: Tensor = self.multi_modal_projector(self.vision_tower(pixels))
        return tokens

    def fill_kv_cache(
        self, image_tokens: Tensor, tokens: Tensor, prefix_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Image and prompt tokens -> keys and values, [L, 1, KV, S, D] each."""
        embedded = torch.cat((image_tokens, self.language_model.embed(tokens)), dim=1)
        keys, values = self.language_model(embedded, prefix_mask)
        return keys, values

    def modulation(self, times: Tensor) -> Tensor:
        """Times [N] -> adaRMS modulation [N, 2 L + 1, 3 W], rows as in spec.denoise_step_spec."""
        embedded = time_embedding(times, self.config.expert.width)
        condition = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(embedded))))
        return torch.stack([norm.modulation(condition) for norm in self.expert.norms()], dim=1)

    def denoise_step(
        self, x: Tensor, modulation: Tensor, keys: Tensor, values: Tensor, prefix_mask: Tensor
    ) -> Tensor:
        """Velocity [1, H, A] of the latent ``x`` at the time of ``modulation`` [2 L + 1, 3 W]."""
        hidden = self.action_in_proj(x).to(keys.dtype)
        hidden = self.expert(hidden, modulation, keys, values, prefix_mask)
        velocity: Tensor = self.action_out_proj(hidden.float())
        return velocity

    def sample_actions(
        self,
        pixels: Tensor,
        tokens: Tensor,
        prefix_mask: Tensor,
        noise: Tensor,
        num_steps: int,
    ) -> Tensor:
        """The policy from end to end: normalised actions [1, H, A]."""
        keys, values = self.fill_kv_cache(self.embed_images(pixels), tokens, prefix_mask)
        times = torch.tensor(euler_times(num_steps), dtype=torch.float64, device=noise.device)
        table = self.modulation(times)
        x, dt = noise, -1.0 / num_steps
        for row in table:
            x = x + dt * self.denoise_step(x, row, keys, values, prefix_mask)
        return x


class GemmaPrefix(nn.Module):
    """Gemma over the prefix, up to the last keys and values: the expert reads nothing else."""

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        prefix = config.prefix
        self.head_dim = prefix.head_dim
        self.embed_tokens = nn.Embedding(config.vocab_size, prefix.width)
        layers = [_PrefixLayer(config) for _ in range(prefix.depth - 1)]
        self.layers = nn.ModuleList([*layers, _LastPrefixLayer(config)])

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [1, P] -> [1, P, width], scaled as Gemma does."""
        embedded: Tensor = self.embed_tokens(tokens)
        return embedded * math.sqrt(embedded.shape[-1])

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """[1, S, width] and mask [1, S] -> keys and values [L, 1, KV, S, D]."""
        # A token that does not count takes no position, so leaving a view out equals masking it.
        rope = rope_table(mask.long().cumsum(-1) - 1, self.head_dim)
        bias = attention_bias(mask, x.dtype)
        cache = []
        for layer in self.layers:
            assert isinstance(layer, _LastPrefixLayer)
            keys, values = layer.keys_values(x, rope)
            cache.append((keys, values))
            if isinstance(layer, _PrefixLayer):
                x = layer(x, rope, keys, values, bias)
        return torch.stack([k for k, _ in cache]), torch.stack([v for _, v in cache])


class _LastPrefixLayer(nn.Module):
    """A layer of which only keys and values are used."""

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        p = config.prefix
        self.input_layernorm = RMSNorm(p.width)
        self.self_attn = GroupedAttention(p.width, p.heads, p.kv_heads, p.head_dim)

    def keys_values(self, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        return self.self_attn.keys_values(self.input_layernorm(x), rope)


class _PrefixLayer(_LastPrefixLayer):
    def __init__(self, config: Pi05Config) -> None:
        super().__init__(config)
        self.post_attention_layernorm = RMSNorm(config.prefix.width)
        self.mlp = GatedMLP(config.prefix.width, config.prefix.mlp)

    def forward(
        self, x: Tensor, rope: Tensor, keys: Tensor, values: Tensor, bias: Tensor
    ) -> Tensor:
        x = x + self.self_attn.attend(self.input_layernorm(x), rope, keys, values, bias)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class ActionExpert(nn.Module):
    """The flow-matching expert: its layer i attends to prefix layer i's keys and to its own."""

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        self.head_dim = config.prefix.head_dim
        self.layers = nn.ModuleList(_ExpertLayer(config) for _ in range(config.depth))
        self.norm = AdaRMSNorm(config.expert.width, config.expert.width)

    def norms(self) -> list[AdaRMSNorm]:
        """Every adaptive norm, in the order of the modulation's rows."""
        found: list[AdaRMSNorm] = []
        for layer in self.layers:
            assert isinstance(layer, _ExpertLayer)
            found += [layer.input_layernorm, layer.post_attention_layernorm]
        return [*found, self.norm]

    def forward(
        self, x: Tensor, modulation: Tensor, keys: Tensor, values: Tensor, prefix_mask: Tensor
    ) -> Tensor:
        """[1, H, width] -> the same, through all layers and the final norm."""
        batch, horizon, _ = x.shape
        start = prefix_mask.long().sum(-1, keepdim=True)
        rope = rope_table(start + torch.arange(horizon, device=x.device), self.head_dim)
        suffix_mask = torch.ones(batch, horizon, dtype=torch.bool, device=x.device)
        bias = attention_bias(torch.cat((prefix_mask, suffix_mask), dim=1), x.dtype)
        for i, layer in enumerate(self.layers):
            x = layer(x, modulation[2 * i : 2 * i + 2], rope, keys[i], values[i], bias)
        out, _ = self.norm.apply_to(x, modulation[-1])
        return out


class _ExpertLayer(nn.Module):
    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        p, width = config.prefix, config.expert.width
        self.input_layernorm = AdaRMSNorm(width, width)
        self.self_attn = GroupedAttention(width, p.heads, p.kv_heads, p.head_dim)
        self.post_attention_layernorm = AdaRMSNorm(width, width)
        self.mlp = GatedMLP(width, config.expert.mlp)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        rope: Tensor,
        prefix_keys: Tensor,
        prefix_values: Tensor,
        bias: Tensor,
    ) -> Tensor:
        normed, gate = self.input_layernorm.apply_to(x, modulation[0])
        keys, values = self.self_attn.keys_values(normed, rope)
        keys = torch.cat((prefix_keys, keys), dim=2)
        values = torch.cat((prefix_values, values), dim=2)
        x = x + gate * self.self_attn.attend(normed, rope, keys, values, bias)
        normed, gate = self.post_attention_layernorm.apply_to(x, modulation[1])
        out: Tensor = x + gate * self.mlp(normed)
        return out
