r"""Train the detector of the simulator's objects and write it as ONNX.

  python training/scenes.py --out runs/scenes.npz
  python training/scenes.py --out runs/validation.npz --images 300 --seeds validation
  python training/train_detector.py --data runs/scenes.npz --validation runs/validation.npz \
      --out runs/detector

The last line of the log is the accuracy on the validation scenes; docs/perception.md says how the
bundle is made of the ONNX file.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from pictures import Augmentation, Pictures, load_pictures
from scenes import read
from torch import Tensor
from torch.nn import functional as F

from vla_trt_ros.datatypes import TensorSpec
from vla_trt_ros.export.perception.accuracy import Accuracy, mean_average_precision
from vla_trt_ros.export.perception.graph import with_labels
from vla_trt_ros.export.perception.network import STRIDE, FinalBoxes, ObjectDetector, fold_norms
from vla_trt_ros.export.to_onnx import export_stage
from vla_trt_ros.perception.heads import final_boxes
from vla_trt_ros.perception.spec import DetectorConfig
from vla_trt_ros.policies.pi05.spec import StageSpec


@dataclass(frozen=True)
class Recipe:
    """Every number of the run."""

    side: int = 320
    batch: int = 64
    peak_rate: float = 2e-3
    warmup: float = 0.05
    """Share of the time in which the rate rises; it falls along a cosine after."""
    weight_decay: float = 0.02
    ema: float = 0.998
    spread: float = 0.09
    """Width of a peak in the heat map, as a share of its object."""
    narrowest: float = 0.7
    """In places of the grid."""
    near: float = 0.4
    """Places where the peak is at least as high learn the box."""
    box_weight: float = 2.0


def peaks(boxes: Tensor, valid: Tensor, grid: int, recipe: Recipe) -> Tensor:
    """Wanted heat maps [B, C, grid, grid] of ``boxes`` [B, C, 4] in pixels: 1 at the place that
    holds the centre, falling off around it, 0 where there is no object.
    """
    centre = ((boxes[..., :2] + boxes[..., 2:]) / 2 / STRIDE).floor()
    size = (boxes[..., 2:] - boxes[..., :2]) / STRIDE
    width = (recipe.spread * size).clamp(min=recipe.narrowest)
    places = torch.arange(grid, device=boxes.device, dtype=boxes.dtype)
    x = (places - centre[..., :1]) / width[..., :1]
    y = (places - centre[..., 1:]) / width[..., 1:]
    heat = torch.exp(-0.5 * (x[..., None, :] ** 2 + y[..., :, None] ** 2))
    return heat * valid[..., None, None]


def heat_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Penalty-reduced focal loss, a mean over objects."""
    wanted_here = wanted == 1
    sure, unsure = F.logsigmoid(logits), F.logsigmoid(-logits)
    score = sure.exp()
    hit = (1 - score) ** 2 * sure * wanted_here
    miss = (1 - wanted) ** 4 * score**2 * unsure * ~wanted_here
    return -(hit + miss).sum() / wanted_here.sum().clamp(min=1)


def box_loss(edges: Tensor, boxes: Tensor, wanted: Tensor, recipe: Recipe) -> Tensor:
    """1 - generalised IoU, weighted by the heat, at the places around each centre."""
    grid = edges.shape[-1]
    middle = (torch.arange(grid, device=edges.device, dtype=edges.dtype) + 0.5) * STRIDE
    x, y = middle[None, None, None, :], middle[None, None, :, None]
    left, upper, right, lower = (boxes[..., i, None, None] for i in range(4))
    ours = (x - edges[:, 0], y - edges[:, 1], x + edges[:, 2], y + edges[:, 3])
    inner = (torch.minimum(ours[2], right) - torch.maximum(ours[0], left)).clamp(min=0) * (
        torch.minimum(ours[3], lower) - torch.maximum(ours[1], upper)
    ).clamp(min=0)
    union = (ours[2] - ours[0]) * (ours[3] - ours[1]) + (right - left) * (lower - upper) - inner
    hull = (torch.maximum(ours[2], right) - torch.minimum(ours[0], left)) * (
        torch.maximum(ours[3], lower) - torch.minimum(ours[1], upper)
    )
    overlap = inner / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)
    weight = torch.where(wanted >= recipe.near, wanted, torch.zeros_like(wanted))
    return ((1 - overlap) * weight).sum() / weight.sum().clamp(min=1)


def train(
    network: ObjectDetector,
    data: Pictures,
    recipe: Recipe,
    seconds: float,
    log: list[dict[str, float]],
) -> ObjectDetector:
    """The average of ``network`` after ``seconds`` on the device of ``data``."""
    device = data.images.device
    network = network.to(device, memory_format=torch.channels_last)
    average: ObjectDetector = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(
        network.parameters(), recipe.peak_rate, weight_decay=recipe.weight_decay
    )
    augment = Augmentation(recipe.side)
    begin, said, updates = time.monotonic(), 0.0, 0
    while (elapsed := time.monotonic() - begin) < seconds:
        done = elapsed / seconds
        warm = min(1.0, done / recipe.warmup)
        rate = recipe.peak_rate * warm * (0.5 + 0.5 * math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group['lr'] = rate
        images, boxes, valid = augment(*data.draw(recipe.batch))
        wanted = peaks(boxes, valid, recipe.side // STRIDE, recipe)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            logits, edges = network(images)
        heat, box = heat_loss(logits, wanted), box_loss(edges, boxes, wanted, recipe)
        optimiser.zero_grad(set_to_none=True)
        (heat + recipe.box_weight * box).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        updates += 1
        keep = min(recipe.ema, updates / (updates + 10))
        with torch.no_grad():
            ours, theirs = average.state_dict(), network.state_dict()
            floats = [k for k, v in ours.items() if v.is_floating_point()]
            torch._foreach_lerp_([ours[k] for k in floats], [theirs[k] for k in floats], 1 - keep)
        if elapsed - said > 10 or updates == 1:
            said = elapsed
            log.append(
                {
                    'seconds': round(elapsed, 1),
                    'updates': updates,
                    'heat_loss': round(float(heat.detach()), 4),
                    'box_loss': round(float(box.detach()), 4),
                }
            )
            print(json.dumps(log[-1]), flush=True)
    return average


def judge(network: ObjectDetector, data: Pictures, config: DetectorConfig) -> Accuracy:
    """Accuracy on ``data`` as it is."""
    final = FinalBoxes(network).eval()
    found, truth = [], []
    for i in range(len(data.images)):
        with torch.no_grad():
            output = final(data.images[i : i + 1].float() / 255).cpu().numpy()
        found.append(final_boxes(output, config, 0.01, 100))
        labels = data.valid[i].nonzero()[:, 0]
        truth.append((data.boxes[i][labels].cpu().numpy(), labels.cpu().numpy()))
    return mean_average_precision(found, truth, config.labels)


def main() -> int:
    """Train and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, required=True, metavar='FILE.npz')
    parser.add_argument('--validation', type=Path, required=True, metavar='FILE.npz')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR')
    parser.add_argument('--seconds', type=float, default=120.0, help='of updates')
    parser.add_argument('--start', type=Path, metavar='FILE.pt', help='weights to go on from')
    parser.add_argument(
        '--rate', type=float, default=Recipe.peak_rate, help='learning, at its peak'
    )
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--batch', type=int, default=Recipe.batch)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    recipe = Recipe(batch=args.batch, peak_rate=args.rate)
    saved = read(args.data)
    labels = tuple(saved[0].names)
    data = load_pictures(saved, recipe.side, args.device)
    log: list[dict[str, float]] = []
    network = ObjectDetector(len(labels))
    if args.start:
        network.load_state_dict(torch.load(args.start, weights_only=True))
    network = train(network, data, recipe, args.seconds, log)
    config = DetectorConfig(recipe.side, labels, 'boxes')
    validation = load_pictures(read(args.validation), recipe.side, args.device)
    accuracy = judge(network, validation, config)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), args.out / 'detector.pt')
    network = network.cpu().to(memory_format=torch.contiguous_format)
    final = FinalBoxes(fold_norms(network))
    side = recipe.side
    spec = StageSpec(
        (TensorSpec('images', (1, 3, side, side), 'float32'),),
        (TensorSpec('boxes', (1, 100, 6), 'float32'),),
    )
    model = with_labels(export_stage(final, spec), labels)
    onnx.save(model, args.out / 'detector.onnx')
    summary = {
        'updates': log[-1]['updates'],
        'pictures': len(data.images),
        'validation_map50': round(accuracy.mean, 4),
        'per_label': {name: round(ap, 4) for name, ap in accuracy.per_label.items()},
        'device': torch.cuda.get_device_name() if args.device == 'cuda' else 'cpu',
        'torch': torch.__version__,
        'parameters': sum(np.prod(p.shape) for p in network.parameters()),
    }
    lines = [json.dumps(row, default=int) for row in (*log, summary)]
    (args.out / 'detector.jsonl').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    print(lines[-1])
    return 0


if __name__ == '__main__':
    sys.exit(main())
