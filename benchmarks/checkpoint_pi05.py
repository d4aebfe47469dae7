"""Does a true-size checkpoint load to the same policy from openpi's layout and from LeRobot's?

    python benchmarks/checkpoint_pi05.py FOLDER --json benchmarks/checkpoint-pi05.json

Writes a random bfloat16 network of true size to FOLDER twice (15 GB, left there), loads each in a
process of its own, and compares every weight and the actions of one observation. Needs the export
extra, 9 GB of memory and some minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from vla_trt_ros.export.pi05.checkpoint import open_checkpoint
from vla_trt_ros.export.pi05.checkpoint_writer import write_weights
from vla_trt_ros.export.pi05.layouts import LAYOUTS
from vla_trt_ros.export.pi05.parameters import load_model
from vla_trt_ros.export.pi05.random_weights import random_model
from vla_trt_ros.export.weightless import as_bytes
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.policies.pi05.spec import PI05

CONFIG = replace(PI05, views=('base', 'wrist'))
TOKENS, NUM_STEPS = 16, 2


def peak_gb() -> float:
    """Largest resident memory of this process; pages of mapped files count."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def write(folder: Path) -> None:
    """Both layouts of one network."""
    model = random_model(CONFIG, 0, torch.bfloat16)
    for layout in LAYOUTS:
        write_weights(folder / layout, model, layout)


def load(folder: Path) -> dict[str, object]:
    """Load one checkpoint and run it once."""
    base = peak_gb()
    begin = time.monotonic()
    checkpoint = open_checkpoint(folder, CONFIG)
    checkpoint.check_finite()
    checked = time.monotonic()
    model = load_model(checkpoint, torch.bfloat16)
    digest = hashlib.sha256()
    for _, parameter in model.named_parameters():
        digest.update(as_bytes(parameter.detach().contiguous()))
    loaded = time.monotonic()
    peak = peak_gb()
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(2, 3, 224, 224, generator=generator) * 2 - 1
    tokens = torch.randint(2, CONFIG.vocab_size, (1, TOKENS), generator=generator)
    noise = torch.randn(1, CONFIG.horizon, CONFIG.action_dim, generator=generator)
    mask = torch.ones(1, CONFIG.image_tokens + TOKENS, dtype=torch.bool)
    with torch.no_grad():
        actions = model.sample_actions(pixels, tokens, mask, noise, NUM_STEPS)
    return {
        'layout': checkpoint.layout,
        'file_gb': round(checkpoint.bytes / 1e9, 3),
        'check_s': round(checked - begin, 1),
        'load_and_hash_s': round(loaded - checked, 1),
        'infer_s': round(time.monotonic() - loaded, 1),
        'peak_memory_gb': round(peak, 2),
        'peak_memory_before_gb': round(base, 2),
        'peak_over_file': round((peak - base) / (checkpoint.bytes / 1e9), 3),
        'weights_sha256': digest.hexdigest(),
        'actions_sha256': hashlib.sha256(as_bytes(actions)).hexdigest(),
        'actions_moved': round(float((actions - noise).abs().max()), 3),
    }


def main() -> int:
    """Exit status 1 where the layouts differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--json', type=Path)
    parser.add_argument('--only', choices=('write', 'load'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only == 'write':
        write(args.folder)
        return 0
    if args.only == 'load':
        print(json.dumps(load(args.folder)))
        return 0
    here = [sys.executable, __file__, str(args.folder), '--only']
    begin = time.monotonic()
    subprocess.run([*here, 'write'], check=True)
    written = time.monotonic() - begin
    rows = []
    for layout in LAYOUTS:
        words = [sys.executable, __file__, str(args.folder / layout), '--only', 'load']
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout))
    same = all(rows[0][key] == rows[1][key] for key in ('weights_sha256', 'actions_sha256'))
    record = {
        'command': 'python benchmarks/checkpoint_pi05.py FOLDER --json FILE',
        'hardware': cpu_name(),
        'software': f'torch {torch.__version__}',
        'shape': f'2 views, {TOKENS} prompt tokens, horizon {CONFIG.horizon}, {NUM_STEPS} steps',
        'precision': 'bf16',
        'clock': 'wall; file pages in the cache of the disk; one process per layout',
        'write_both_s': round(written, 1),
        'identical': same,
        'layouts': rows,
    }
    text = json.dumps(record, indent=2) + '\n'
    print(text)
    if args.json:
        args.json.write_text(text, encoding='utf-8')
    return 0 if same else 1


if __name__ == '__main__':
    sys.exit(main())
