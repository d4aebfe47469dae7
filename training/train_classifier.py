r"""Train a classifier of the simulator's boxes, open or closed, and write it as ONNX.

python training/train_classifier.py --data runs/scenes.npz --validation runs/validation.npz \
    --of gripper --out runs/gripper
python training/train_classifier.py --data runs/scenes.npz --validation runs/validation.npz \
    --of drawer,door --out runs/opening
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from crops import STATES, cut
from PIL import Image
from scenes import read
from torch import Tensor
from torch.nn import functional as F

from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.export.perception.graph import with_labels
from vla_trt_ros.export.perception.network import CropClassifier, fold_norms
from vla_trt_ros.export.to_onnx import export_stage
from vla_trt_ros.policies.pi05.spec import StageSpec

SIDE = CropClassifier.SIDE
MARGIN = 0.1
"""Of a box, shown around it: give the export the same."""
COPIES, JITTER = 4, 0.08
BATCH, PEAK_RATE, WEIGHT_DECAY = 128, 2e-3, 0.02


def to_tensor(crops: np.typing.NDArray[np.uint8], device: str) -> Tensor:
    """uint8 [N, 3, side, side] on ``device``."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous().to(device)


def vary(images: Tensor) -> Tensor:
    """uint8 -> float32 0 to 1, mirrored, dimmed and tinted by chance."""
    count, device = len(images), images.device
    x = images.float() / 255
    x = torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, x.flip(3), x)
    contrast = 1 + (torch.rand(count, 1, 1, 1, device=device) - 0.5) * 0.6
    shift = (torch.rand(count, 3, 1, 1, device=device) - 0.5) * 0.3
    return ((x - 0.5) * contrast + 0.5 + shift).clamp(0, 1)


def train(images: Tensor, states: Tensor, updates: int) -> CropClassifier:
    """A network after ``updates``, both states drawn as often."""
    network: CropClassifier = CropClassifier(len(STATES)).to(images.device)
    optimiser = torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    rows = [(states == i).nonzero()[:, 0] for i in range(len(STATES))]
    for update in range(updates):
        for group in optimiser.param_groups:
            group['lr'] = PEAK_RATE * (0.5 + 0.5 * math.cos(math.pi * update / updates))
        drawn = torch.cat(
            [r[torch.randint(len(r), (BATCH // len(rows),), device=r.device)] for r in rows]
        )
        loss = F.cross_entropy(network(vary(images[drawn])), states[drawn])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if update % 200 == 0:
            print(json.dumps({'update': update, 'loss': round(float(loss.detach()), 4)}))
    network.eval()
    return network


def main() -> int:
    """Train and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, required=True, metavar='FILE.npz')
    parser.add_argument('--validation', type=Path, required=True, metavar='FILE.npz')
    parser.add_argument('--of', required=True, metavar='A,B', help='labels of the detector')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR')
    parser.add_argument('--updates', type=int, default=2000)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    of_class = args.of.split(',')
    crops, states = cut(read(args.data), of_class, SIDE, MARGIN, COPIES, JITTER)
    network = train(
        to_tensor(crops, args.device), torch.from_numpy(states).to(args.device), args.updates
    )
    judged, wanted = cut(read(args.validation), of_class, SIDE, MARGIN)
    with torch.no_grad():
        logits = network(to_tensor(judged, args.device).float() / 255)
    right = float((logits.argmax(1).cpu().numpy() == wanted).mean())
    spec = StageSpec(
        (TensorSpec('images', (1, 3, SIDE, SIDE), 'float32'),),
        (TensorSpec('logits', (1, len(STATES)), 'float32'),),
    )
    args.out.mkdir(parents=True, exist_ok=True)
    model = with_labels(export_stage(fold_norms(network.cpu()), spec), STATES)
    onnx.save(model, args.out / 'classifier.onnx')
    (args.out / 'crops').mkdir(exist_ok=True)
    for i, crop in enumerate(judged):  # to calibrate int8 on
        Image.fromarray(crop).save(args.out / 'crops' / f'{i:04}.png')
    print(json.dumps({'crops': len(crops), 'validation': len(wanted), 'right': round(right, 4)}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
