"""What depends on the time alone, worked out once per number of steps; and rotary angles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vla_trt_ros.policies.pi05.cuda.fold import FastWeights, Load
from vla_trt_ros.policies.pi05.spec import Pi05Config, euler_times

ROPE_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class StepTables:
    """The adaptive norms of N steps. A norm's rows are numbered as in spec.denoise_step_spec.

    ``norm(x) * factor + shift`` goes through a product as ``norm(x) * factor @ W.T + shift @ W.T``
    whose second half needs no ``x``: it is tabulated too.
    """

    factor: Tensor
    """float32 [N, 2 L + 1, W]: 1 + scale."""
    gate: Tensor
    """float32 [N, 2 L + 1, W]."""
    qkv_shift: Tensor
    """float32 [N, L, rows of qkv]."""
    gate_up_shift: Tensor
    """float32 [N, L, rows of gate_up]."""
    out_shift: Tensor
    """float32 [N, A], the bias of action_out in it."""


def step_tables(weights: FastWeights, load: Load, num_steps: int) -> StepTables:
    """Tables for Euler steps at `spec.euler_times`; ``load`` gives the time and norm weights.

    The shifts are taken through ``weights`` before quantisation: pass the folded ones.
    """

    def get(name: str) -> Tensor:
        return load(name).detach().float()

    config = weights.config
    width = config.expert.width
    hidden = time_embedding(torch.tensor(euler_times(num_steps)), width)
    hidden = hidden.to(get('time_mlp_in.bias').device)
    for part in ('in', 'out'):
        product = hidden @ get(f'time_mlp_{part}.weight').T + get(f'time_mlp_{part}.bias')
        hidden = torch.nn.functional.silu(product)
    norms = [
        f'expert.layers.{i}.{n}_layernorm'
        for i in range(config.depth)
        for n in ('input', 'post_attention')
    ]
    rows = [
        hidden @ get(f'{n}.dense.weight').T + get(f'{n}.dense.bias')
        for n in (*norms, 'expert.norm')
    ]
    scale, shift, gate = torch.stack(rows, dim=1).chunk(3, dim=-1)
    qkv, gate_up = [], []
    for i, layer in enumerate(weights.expert):
        assert layer.gate_up is not None
        qkv.append(shift[:, 2 * i] @ layer.qkv.weight.float().T)
        gate_up.append(shift[:, 2 * i + 1] @ layer.gate_up.weight.float().T)
    bias = weights.action_out.bias
    assert bias is not None
    out = shift[:, -1] @ weights.action_out.weight.float().T + bias.float()
    return StepTables(
        (1.0 + scale).contiguous(),
        gate.contiguous(),
        torch.stack(qkv, dim=1).contiguous(),
        torch.stack(gate_up, dim=1).contiguous(),
        out.contiguous(),
    )


def time_embedding(times: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of ``times`` [N]: float32 [N, width], periods from 4e-3 to 4.

    Float64 inside, as in the reference network.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64)
    periods = 4e-3 * (4.0 / 4e-3) ** fraction
    angles = times.double()[:, None] * (2.0 * math.pi / periods)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()


def rope_tables(config: Pi05Config, positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions 0, 1, ...: float32 [positions, head_dim / 2] each."""
    half = config.prefix.head_dim // 2
    frequency = ROPE_BASE ** -(torch.arange(half).float() / half)
    angles = torch.arange(positions).float()[:, None] * frequency
    return angles.cos(), angles.sin()
