"""SigLIP: the vision tower."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_trt_ros.export.pi05.layers import LAYER_NORM_EPS
from vla_trt_ros.policies.pi05.spec import Pi05Config, VisionConfig


class SiglipVision(nn.Module):
    """Patches, learned positions, pre-norm layers, a final norm."""

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        vision = config.vision
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(vision)
        self.post_layernorm = nn.LayerNorm(vision.width, eps=LAYER_NORM_EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [V, 3, S, S] in [-1, 1] -> [V, T, width]; V is the batch here."""
        # Patches are float32 in every precision, as the pixels are: before opset 22, ONNX has no
        # convolution in bfloat16.
        x = self.embeddings(pixels).to(self.post_layernorm.weight.dtype)
        for layer in self.encoder.layers:
            x = layer(x)
        out: Tensor = self.post_layernorm(x)
        return out


class _Embeddings(nn.Module):
    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        width = config.vision.width
        self.patch_embedding = nn.Conv2d(3, width, config.patch, stride=config.patch)
        self.position_embedding = nn.Embedding(config.tokens_per_view, width)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        out: Tensor = patches + self.position_embedding.weight
        return out


class _Encoder(nn.Module):
    def __init__(self, vision: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(vision) for _ in range(vision.depth))


class _Layer(nn.Module):
    def __init__(self, vision: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(vision.width, eps=LAYER_NORM_EPS)
        self.self_attn = _Attention(vision)
        self.layer_norm2 = nn.LayerNorm(vision.width, eps=LAYER_NORM_EPS)
        self.mlp = _MLP(vision)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class _Attention(nn.Module):
    def __init__(self, vision: VisionConfig) -> None:
        super().__init__()
        self.heads = vision.heads
        self.q_proj = nn.Linear(vision.width, vision.width)
        self.k_proj = nn.Linear(vision.width, vision.width)
        self.v_proj = nn.Linear(vision.width, vision.width)
        self.out_proj = nn.Linear(vision.width, vision.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return projected


class _MLP(nn.Module):
    def __init__(self, vision: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision.width, vision.mlp)
        self.fc2 = nn.Linear(vision.mlp, vision.width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate='tanh'))
        return out


class Projector(nn.Module):
    """Vision width -> prefix width. Image tokens are not scaled as Gemma's embeddings are."""

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        self.linear = nn.Linear(config.vision.width, config.prefix.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[V, T, vision width] -> [1, V * T, prefix width]."""
        return torch.flatten(self.linear(tokens), 0, 1)[None]
