"""The project's own Pi0.5 definition, started afresh and run on batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vla_trt_ros.export.pi05.layers import AdaRMSNorm
from vla_trt_ros.export.pi05.model import Pi05
from vla_trt_ros.policies.pi05.spec import Pi05Config, euler_times


def fresh_model(config: Pi05Config, number_tokens: Tensor, seed: int) -> Pi05:
    """Starting weights: scaled by fan-in, branches of the expert open, places and state numbers
    laid out as waves, so that what is near looks alike from the first update on.
    """
    torch.manual_seed(seed)
    model = Pi05(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        for module in model.modules():
            if isinstance(module, AdaRMSNorm):
                nn.init.zeros_(module.dense.weight)
                nn.init.zeros_(module.dense.bias)
                module.dense.bias.chunk(3)[2].fill_(1.0)
        for name, parameter in model.named_parameters():
            if name.endswith(
                ('o_proj.weight', 'down_proj.weight', 'out_proj.weight', 'fc2.weight')
            ):
                parameter.mul_((2 * config.depth) ** -0.5)
        nn.init.zeros_(model.action_out_proj.weight)
        side = config.image_size // config.patch
        model.vision_tower.embeddings.position_embedding.weight.copy_(
            _waves_2d(side, config.vision.width)
        )
        table = model.language_model.embed_tokens.weight
        line = torch.linspace(0.0, 1.0, len(number_tokens))
        table[number_tokens] = _waves(line, config.prefix.width) * config.prefix.width**-0.5
    return model


def prefix_of(
    model: Pi05, pixels: Tensor, tokens: Tensor, token_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels [B, V, 3, S, S] in [-1, 1], tokens and their mask [B, P] -> keys, values
    [L, B, KV, T, D] and mask [B, T] of the prefix.
    """
    batch = len(pixels)
    images = model.embed_images(pixels.flatten(0, 1))[0].unflatten(0, (batch, -1))
    seen = token_mask.new_ones(batch, images.shape[1])
    mask = torch.cat((seen, token_mask), dim=1)
    # Float32 here keeps the residual streams wide where autocast computes in bfloat16.
    embedded = torch.cat((images.float(), model.language_model.embed(tokens).float()), dim=1)
    keys, values = model.language_model(embedded, mask)
    return keys.float(), values.float(), mask


def velocity(
    model: Pi05, x: Tensor, times: Tensor, keys: Tensor, values: Tensor, mask: Tensor
) -> Tensor:
    """Velocity of the latents x [B, H, A] at ``times`` [B]."""
    rows = model.modulation(times).transpose(0, 1)[:, :, None, :]
    return model.denoise_step(x, rows, keys, values, mask)


def flow_loss(
    model: Pi05,
    pixels: Tensor,
    tokens: Tensor,
    token_mask: Tensor,
    actions: Tensor,
    noise: Tensor,
    times: Tensor,
) -> Tensor:
    """Flow matching as openpi does it: mean square of the velocity's error over the robot's own
    columns. actions [B, H, C], noise [B * K, H, C], times [B * K].

    The padding columns of the latent are kept at zero on both sides, so no weight learns anything
    from them; `clear_padding` then makes them exactly deaf and mute.
    """
    keys, values, mask = prefix_of(model, pixels, tokens, token_mask)
    copies = len(noise) // len(actions)
    actions = actions.repeat_interleave(copies, 0)
    t = times[:, None, None]
    x = t * noise + (1.0 - t) * actions
    columns = actions.shape[-1]
    x = nn.functional.pad(x, (0, model.config.action_dim - columns))
    predicted = velocity(
        model,
        x,
        times,
        keys.repeat_interleave(copies, 1),
        values.repeat_interleave(copies, 1),
        mask.repeat_interleave(copies, 0),
    )
    return (predicted[..., :columns].float() - (noise - actions)).square().mean()


def draw_times(count: int, device: torch.device) -> Tensor:
    """Beta(1.5, 1) times in (0.001, 1), as openpi draws them: more of the noisy end."""
    uniform = torch.rand(count, device=device)
    # The distribution function of Beta(1.5, 1) is t^1.5.
    return uniform ** (1.0 / 1.5) * 0.999 + 0.001


def sample(
    model: Pi05, pixels: Tensor, tokens: Tensor, token_mask: Tensor, noise: Tensor, num_steps: int
) -> Tensor:
    """Normalised actions [B, H, A] by Euler steps from ``noise``."""
    with torch.inference_mode():
        keys, values, mask = prefix_of(model, pixels, tokens, token_mask)
        x = noise
        for t in euler_times(num_steps):
            times = torch.full((len(x),), t, dtype=torch.float64, device=x.device)
            x = x - velocity(model, x, times, keys, values, mask) / num_steps
    return x


def clear_padding(weights: dict[str, Tensor], columns: int) -> None:
    """Zero what reads or writes the latent's columns from ``columns`` on."""
    weights['action_in_proj.weight'][:, columns:] = 0.0
    weights['action_out_proj.weight'][columns:] = 0.0
    weights['action_out_proj.bias'][columns:] = 0.0


def _waves(places: Tensor, width: int) -> Tensor:
    """Sines and cosines of ``places`` [N] in [0, 1]: [N, width], each entry of variance 1."""
    rates = 2.0 ** torch.linspace(0.0, 6.0, width // 2)
    angles = math.pi * places[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1) * 2.0**0.5


def _waves_2d(side: int, width: int) -> Tensor:
    """Positions of a side x side grid, row by row: [side * side, width]."""
    half = _waves(torch.linspace(0.0, 1.0, side), width // 2)
    rows = half[:, None].expand(side, side, -1)
    columns = half[None].expand(side, side, -1)
    return 0.5 * torch.cat((rows, columns), dim=-1).flatten(0, 1)
