"""Seeded random weights under which every part of the network has a say.

PyTorch's defaults would do for shapes, but with them the actions hardly depend on the image. Here
each part is scaled so that image, prompt, state and time all move the actions, and normalised
actions stay near [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla_trt_ros.export.pi05.layers import RMSNorm
from vla_trt_ros.export.pi05.model import Pi05
from vla_trt_ros.export.pi05.parameters import skeleton
from vla_trt_ros.policies.pi05.spec import Pi05Config

_MODULATION = 0.3
"""Deviation of the adaptive scales and shifts from 0, and of the gates from `_GATE`."""
_GATE = 0.5
_SHARPNESS = 4.0
"""Attention that picks tokens out instead of averaging over all of them."""
_NOISE_IN = 3.0
_NOISE_OUT = 0.7
"""Gains of the latent on its way in and out: together they make the velocity point from the
actions to the noise, as a trained network's does.
"""


def random_model(
    config: Pi05Config,
    seed: int,
    compute: torch.dtype = torch.float32,
    device: str = 'cpu',
    sharpness: float = _SHARPNESS,
) -> Pi05:
    """A model in eval mode that computes in ``compute``.

    The same seed, dtype, kind of device and sharpness give the same weights. At true size the
    default ``sharpness``, a gain of the attention's logits, amplifies rounding layer by layer:
    even two float32 evaluations agree to a cosine of 0.99998 only. 1 leaves logits as they come.
    """
    model = skeleton(config, compute)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, module in model.named_modules():
            for leaf, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, leaf, nn.Parameter(torch.empty_like(parameter, device=device)))
            _initialize(module, generator)
            if name.endswith(('q_proj', 'k_proj')):
                module.weight.mul_(sharpness**0.5)
        _open_gates(model)
        _aim_at_noise(model, generator)
    return model


def _initialize(module: nn.Module, generator: torch.Generator) -> None:
    def normal(weight: Tensor, mean: float, deviation: float) -> None:
        weight.normal_(mean, deviation, generator=generator)

    if isinstance(module, (nn.Linear, nn.Conv2d)):
        normal(module.weight, 0.0, module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            normal(module.bias, 0.0, 0.02)
    elif isinstance(module, nn.Embedding):
        normal(module.weight, 0.0, module.embedding_dim**-0.5)
    elif isinstance(module, RMSNorm):
        normal(module.weight, 0.0, 0.1)
    elif isinstance(module, nn.LayerNorm):
        normal(module.weight, 1.0, 0.1)
        normal(module.bias, 0.0, 0.05)


def _open_gates(model: Pi05) -> None:
    times = torch.linspace(0.1, 1.0, 10, device=model.action_in_proj.weight.device)
    spread = model.modulation(times).std(dim=(0, 2))
    for norm, deviation in zip(model.expert.norms(), spread, strict=True):
        norm.dense.weight.mul_(_MODULATION / deviation)
        norm.dense.bias.zero_()
        norm.dense.bias.chunk(3)[2].fill_(_GATE)


def _aim_at_noise(model: Pi05, generator: torch.Generator) -> None:
    shape = model.action_in_proj.weight.shape
    square = torch.randn(max(shape), min(shape), generator=generator, device=generator.device)
    basis = torch.linalg.qr(square)[0]
    basis = basis if shape[0] >= shape[1] else basis.T
    model.action_in_proj.weight.copy_(_NOISE_IN * basis)
    model.action_out_proj.weight.copy_(_NOISE_OUT * basis.T)
