"""A public peer on the same card: LeRobot's Pi0.5 in eager PyTorch, bf16, random weights.

    git clone https://github.com/huggingface/lerobot
    pip install "transformers>=5.4,<5.6" draccus==0.10.0
    python benchmarks/peer_lerobot.py lerobot --json peer.json

Its code is read from the folder and never part of this repository; of the package only the model
is imported, which needs no data sets and no robots. As its own default has it, the vision tower
stays in float32. Needs a GPU with 30 GB, torch, torchvision; takes a minute.
"""

from __future__ import annotations

import sys
import types
from functools import wraps
from itertools import pairwise

import numpy as np
import torch
from records import peer_arguments, tell

STEPS = 10
SHAPES = '3x200x50,2x48x10'
CLOCK = 'sample_actions(), CUDA events, each run waited for, pixels on the GPU in, actions out'


def model_module(folder):
    """Its modeling_pi05, without what the packages around it would import."""
    source = folder / 'src'
    sys.path.insert(0, str(source))
    for name in ('policies', 'policies.pi05', 'policies.common', 'policies.rtc'):
        package = types.ModuleType(f'lerobot.{name}')
        package.__path__ = [str(source / 'lerobot' / name.replace('.', '/'))]
        sys.modules[package.__name__] = package
    from lerobot.policies.pi05 import configuration_pi05, modeling_pi05

    return configuration_pi05, modeling_pi05


def marked(net, marks):
    """Let ``net`` record an event after the images and the prompt are embedded, and one before
    its first denoise step.
    """

    def mark():
        marks.append(torch.cuda.Event(enable_timing=True))
        marks[-1].record()

    embed, step = net.embed_prefix, net.denoise_step

    @wraps(embed)
    def embed_prefix(*args, **kwargs):
        found = embed(*args, **kwargs)
        mark()
        return found

    @wraps(step)
    def denoise_step(*args, **kwargs):
        if len(marks) == 2:
            mark()
        return step(*args, **kwargs)

    net.embed_prefix, net.denoise_step = embed_prefix, denoise_step
    return mark


def measure(modules, wanted, count, where, warm_up=3):
    """One record."""
    views, tokens, horizon = wanted
    configuration, modeling = modules
    config = configuration.PI05Config(dtype='bfloat16', chunk_size=horizon, n_action_steps=horizon)
    torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    with torch.device('cuda'):
        net = modeling.PI05Pytorch(config).eval()
        images = [torch.rand(1, 3, 224, 224) * 2 - 1 for _ in range(views)]
        there = [torch.ones(1, dtype=torch.bool)] * views
        prompt = torch.randint(1000, (1, tokens))
        mask = torch.ones(1, tokens, dtype=torch.bool)
        noise = torch.randn(1, horizon, 32)
    marks = []
    mark = marked(net, marks)

    def once():
        marks.clear()
        mark()
        actions = net.sample_actions(images, there, prompt, mask, noise=noise, num_steps=STEPS)
        mark()
        torch.cuda.synchronize()
        return actions

    if not once().isfinite().all():
        raise SystemExit(f'{wanted}: the actions are not finite, so a time would mean nothing.')
    for _ in range(warm_up):
        once()
    rows = []
    for _ in range(count):
        once()
        rows.append([a.elapsed_time(b) for a, b in pairwise(marks)])
    rows = np.array(rows)
    p50, p99 = np.percentile(rows.sum(axis=1), [50, 99])
    vision, prefix, denoise = np.median(rows, axis=0)
    return {
        'hardware': torch.cuda.get_device_name(),
        'backend': 'pytorch eager',
        'precision': 'bf16',
        'views': views,
        'prompt_tokens': tokens,
        'horizon': horizon,
        'steps': STEPS,
        'e2e_total_ms': round(float(p50), 2),
        'vision_ms': round(float(vision), 2),
        'prefix_ms': round(float(prefix), 2),
        'denoise_ms': round(float(denoise), 2),
        'hz': round(1e3 / float(p50), 2),
        'p50_ms': round(float(p50), 2),
        'p99_ms': round(float(p99), 2),
        'n': count,
        'clock': CLOCK,
        'implementation': where,
        'gpu_memory_mib': round(torch.cuda.max_memory_allocated() / 2**20),
        'weights': 'random, seed 0; vision tower float32',
        'software': f'torch {torch.__version__}, CUDA {torch.version.cuda}',
    }


def main():
    """Measure, print, write."""
    args = peer_arguments(__doc__, 'lerobot', 30, SHAPES)
    if not (args.folder / 'src/lerobot/policies/pi05').is_dir():
        raise SystemExit(f'{args.folder} has no Pi0.5: name a clone of lerobot.')
    modules = model_module(args.folder)
    where = f'LeRobot {args.revision}'.strip()
    with torch.no_grad():
        records = [measure(modules, wanted, args.n, where) for wanted in args.shapes]
    tell(records, args.json)


if __name__ == '__main__':
    main()
