"""How much memory loading takes, measured on a checkpoint of about 1 GB."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

torch = pytest.importorskip('torch', reason="workshop only: pip install '.[export]'")
pytest.importorskip('safetensors', reason="workshop only: pip install '.[export]'")

from vla_trt_ros.export.pi05.checkpoint_writer import write_weights  # noqa: E402
from vla_trt_ros.export.pi05.random_weights import random_model  # noqa: E402
from vla_trt_ros.policies.pi05.spec import PI05  # noqa: E402

LARGE = replace(
    PI05,
    vision=replace(PI05.vision, depth=4),
    prefix=replace(PI05.prefix, depth=3),
    vocab_size=20_000,
)

# Runs in a process of its own, so that nothing but the loading counts.
LOAD = """
import json, sys
from pathlib import Path
import torch
from vla_trt_ros.export.pi05.checkpoint import open_checkpoint
from vla_trt_ros.export.pi05.parameters import load_model
from vla_trt_ros.policies.pi05.spec import Pi05Config
from vla_trt_ros.strict_yaml import build

def peak():
    # Not ru_maxrss: it begins with what the parent process held.
    line = next(s for s in open('/proc/self/status') if s.startswith('VmHWM'))
    return int(line.split()[1]) * 1024

config = build(Pi05Config, json.loads(sys.argv[2]), 'test')
before = peak()
checkpoint = open_checkpoint(Path(sys.argv[1]), config)
checkpoint.check_finite()
model = load_model(checkpoint, getattr(torch, sys.argv[3]))
total = sum(float(p.detach().float().sum()) for p in model.parameters())
assert total == total
print(json.dumps({'peak': peak() - before, 'file': checkpoint.bytes}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ('stored', 'kept'), [('bfloat16', 'bfloat16'), ('float32', 'float32'), ('float32', 'bfloat16')]
)
def test_loading_takes_little_more_than_the_file(tmp_path, stored, kept):
    config = LARGE
    if stored == 'float32':
        config = replace(LARGE, prefix=replace(LARGE.prefix, depth=2), vocab_size=4_000)
    write_weights(tmp_path, random_model(config, 0, getattr(torch, stored)), 'lerobot')
    words = [sys.executable, '-c', LOAD, str(tmp_path), json.dumps(asdict(config)), kept]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    share = found['peak'] / found['file']
    print(f'{stored} kept as {kept}: {found["file"] / 1e9:.2f} GB, peak {share:.2f} x the file')
    assert 0.7e9 < found['file'] < 1.6e9
    assert share < 1.3
