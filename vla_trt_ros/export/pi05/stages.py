"""The model cut at the boundaries of policies/pi05/spec.py, one module per ONNX graph."""

from __future__ import annotations

from torch import Tensor, nn

from vla_trt_ros.export.pi05.model import Pi05


class VisionStage(nn.Module):
    """pixels -> image_tokens."""

    def __init__(self, model: Pi05) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Shapes: spec.vision_spec."""
        return self.model.embed_images(pixels)


class PrefixStage(nn.Module):
    """image_tokens, tokens, prefix_mask -> keys, values."""

    def __init__(self, model: Pi05) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, image_tokens: Tensor, tokens: Tensor, prefix_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Shapes: spec.prefix_spec."""
        return self.model.fill_kv_cache(image_tokens, tokens, prefix_mask)


class DenoiseStepStage(nn.Module):
    """x, modulation, keys, values, prefix_mask -> velocity."""

    def __init__(self, model: Pi05) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, x: Tensor, modulation: Tensor, keys: Tensor, values: Tensor, prefix_mask: Tensor
    ) -> Tensor:
        """Shapes: spec.denoise_step_spec."""
        return self.model.denoise_step(x, modulation, keys, values, prefix_mask)
