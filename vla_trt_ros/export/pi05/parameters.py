"""Where the weights of a network come from, and in which dtype each is kept."""

from __future__ import annotations

import re
from typing import Protocol

import torch
from torch import Tensor, nn

from vla_trt_ros.errors import BundleError
from vla_trt_ros.export.pi05.model import Pi05
from vla_trt_ros.policies.pi05.spec import Pi05Config

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
"""Dtype that a network computes in, per precision that needs no quantisation."""

_FLOAT32 = re.compile(
    r'(action_|time_mlp_|vision_tower\.embeddings\.|(language_model|expert)\..*norm)'
)


class ParameterSource(Protocol):
    """Weights by the names of `Pi05`, one at a time, so that they are never in memory together."""

    config: Pi05Config

    def load(self, name: str) -> Tensor:
        """The tensor ``name`` in the dtype that it is stored in. Do not write to it."""


class ModelParameters:
    """The weights of a model that is in memory."""

    def __init__(self, model: Pi05) -> None:
        self.config = model.config
        self._parameters = dict(model.named_parameters())

    def load(self, name: str) -> Tensor:
        """A view of the model's own tensor."""
        return self._parameters[name].detach()


class HalfParameters:
    """The weights of ``source`` rounded to float16's numbers, in the dtype they had.

    Rounded before anything is made of them, so that the reference network and every graph compute
    with the same numbers, whether they are stored in 32 bits or 16.
    """

    def __init__(self, source: ParameterSource) -> None:
        self.config = source.config
        self._source = source

    def load(self, name: str) -> Tensor:
        """The rounded tensor; BundleError where a weight leaves float16's range."""
        tensor = self._source.load(name)
        half = tensor.half()
        beyond = int((torch.isinf(half) & torch.isfinite(tensor)).sum())
        if beyond:
            raise BundleError(
                f'{name}: {beyond} of {tensor.numel()} weights are beyond 65504, the largest '
                'float16; store this network as fp32.'
            )
        return half.to(tensor.dtype)


def parameter_dtype(name: str, compute: torch.dtype) -> torch.dtype:
    """Dtype of parameter ``name`` in a network that computes in ``compute``.

    Norms of Gemma and of the expert, and the embeddings of patches, time and actions, stay
    float32: they are small, and the pixels and the latent that they touch are float32.
    """
    return torch.float32 if _FLOAT32.match(name) else compute


def skeleton(config: Pi05Config, compute: torch.dtype) -> Pi05:
    """The network without weights (on torch's meta device), in eval mode."""
    with torch.device('meta'):
        model = Pi05(config).eval()
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(parameter_dtype(name, compute))
    return model


def load_model(source: ParameterSource, compute: torch.dtype) -> Pi05:
    """The network of ``source`` in memory, in eval mode.

    A weight that is stored in the dtype it is kept in is not copied.
    """
    model = skeleton(source.config, compute)
    for name, parameter in list(model.named_parameters()):
        tensor = source.load(name).to(parameter.dtype)
        owner, _, leaf = name.rpartition('.')
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
    return model


def modulation_table(source: ParameterSource, times: list[float]) -> Tensor:
    """`Pi05.modulation` at ``times``, float32 [times, 2 L + 1, 3 W]; reads what it needs only."""
    model = skeleton(source.config, torch.float32)
    needed = [
        name
        for name, _ in model.named_parameters()
        if name.startswith('time_mlp_') or (name.startswith('expert.') and '.dense.' in name)
    ]
    for name in needed:
        owner, _, leaf = name.rpartition('.')
        tensor = source.load(name).float()
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
    with torch.no_grad():
        return model.modulation(torch.tensor(times, dtype=torch.float64))
