"""The detector and the classifier of this project's own bundles, in plain PyTorch.

The detector has no anchors: each place of a grid of 8 x 8 pixels says how likely an object of each
class has its centre there, and how far its four edges are (Objects as Points, Zhou et al. 2019;
distances as in FCOS, Tian et al. 2019). A place counts only where its score is the best of its
neighbourhood, so at most one box of an object comes out and nothing is left to suppress: the
output is head ``boxes`` of perception/spec.py. Convolutions and ReLU alone, which every runtime
fuses and int8 suits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 8
BEST = 100
"""Boxes that come out, most of them with a score near 0."""
WIDTHS = (16, 32, 64, 128, 160)
"""Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size."""
_REACH = 6.0
"""Edges are at most exp(6) places away from the centre: no overflow, whatever comes in."""


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the size is kept, or halved by stride 2."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Bottleneck(nn.Module):
    """Half as wide inside, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(width, width // 2, 1), conv(width // 2, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W], the same shape out."""
        return x + self.body(x)


class ObjectDetector(nn.Module):
    """Images float32 [B, 3, side, side], RGB, 0 to 1, side a multiple of 32."""

    def __init__(self, labels: int, widths: tuple[int, int, int, int, int] = WIDTHS) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth, last = widths
        self.stem = nn.Sequential(conv(3, half, 3, 2), conv(half, quarter, 3, 2))
        self.eighth = nn.Sequential(conv(quarter, eighth, 3, 2), *self._deep(eighth, 2))
        self.sixteenth = nn.Sequential(conv(eighth, sixteenth, 3, 2), *self._deep(sixteenth, 2))
        self.last = nn.Sequential(conv(sixteenth, last, 3, 2), *self._deep(last, 2))
        self.from_last = conv(last, sixteenth, 1)
        self.from_sixteenth = conv(sixteenth, eighth, 1)
        self.join = conv(sixteenth, sixteenth)
        self.head = nn.Sequential(conv(eighth, eighth), conv(eighth, eighth))
        self.heat = nn.Conv2d(eighth, labels, 1)
        self.edges = nn.Conv2d(eighth, 4 * labels, 1)
        nn.init.constant_(self.heat.bias, -4.6)  # nearly every place is empty: a score of 0.01

    @staticmethod
    def _deep(width: int, count: int) -> list[nn.Module]:
        return [Bottleneck(width) for _ in range(count)]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, labels, G, G] and edges [B, 4, labels, G, G] (distance of the left, upper,
        right and lower one, pixels), G = side / 8. A button and the box that it sits on may have
        one centre: edges are told for each label.
        """
        eighth = self.eighth(self.stem(images))
        sixteenth = self.sixteenth(eighth)
        last = F.interpolate(self.from_last(self.last(sixteenth)), scale_factor=2.0)
        sixteenth = self.join(sixteenth + last)
        up = F.interpolate(self.from_sixteenth(sixteenth), scale_factor=2.0)
        features = self.head(eighth + up)
        edges = self.edges(features).float().clamp(max=_REACH).exp() * STRIDE
        return self.heat(features).float(), edges.unflatten(1, (4, -1))


class FinalBoxes(nn.Module):
    """An `ObjectDetector` that ends in boxes: [1, BEST, 6], best first."""

    def __init__(self, detector: ObjectDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        """float32 [1, 3, side, side] -> left, upper, right, lower, score, label."""
        logits, edges = self.detector(images)
        grid = logits.shape[3]
        count = logits.shape[1] * grid * grid
        scores = logits.sigmoid()
        best_near = F.max_pool2d(scores, 3, 1, 1)
        peaks = torch.where(scores == best_near, scores, torch.zeros_like(scores))
        score, place = peaks.reshape(count).topk(BEST)
        # In float32, which holds these numbers exactly: builders do division of integers badly.
        at = place.to(torch.float32) + 0.5
        label = torch.floor(at / (grid * grid))
        row = torch.floor((at - label * (grid * grid)) / grid)
        column = at - label * (grid * grid) - row * grid  # of the cell's middle already
        x, y = column * STRIDE, (row + 0.5) * STRIDE
        reach = edges.reshape(4, count).index_select(1, place)
        boxes = (x - reach[0], y - reach[1], x + reach[2], y + reach[3])
        return torch.stack((*boxes, score, label), dim=1)[None]


class CropClassifier(nn.Module):
    """Crops float32 [B, 3, 64, 64], RGB, 0 to 1 -> logits [B, labels]."""

    SIDE = 64

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 16, 3, 2), conv(16, 32, 3, 2), conv(32, 64, 3, 2), conv(64, 96, 3, 2)
        )
        self.head = nn.Linear(96, labels)

    def forward(self, crops: Tensor) -> Tensor:
        """Logits: `torch.softmax` makes probabilities of them."""
        found: Tensor = self.head(self.body(crops).mean(dim=(2, 3)))
        return found


def fold_norms(network: nn.Module) -> nn.Module:
    """``network`` in eval mode with every batch norm folded into the convolution before it."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.Sequential) and len(module) == 3:
            first, norm = module[0], module[1]
            if isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0] = nn.utils.fusion.fuse_conv_bn_eval(first, norm)
                module[1] = nn.Identity()
    return network
