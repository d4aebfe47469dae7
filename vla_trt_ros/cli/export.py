"""Make a bundle: export a Pi0.5 network stage by stage to ONNX and pack it with its vocabulary,
statistics and robot layout.

Needs the workshop's packages (pip install '.[export]'); the bundle runs without them.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from vla_trt_ros.config import load_robot
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.policies.pi05.spec import NANO, PI05

SIZES = {'nano': NANO, 'pi05': PI05}

_CARD = """# {name}

A Pi0.5-shaped policy of size `{size}` with **random weights** (seed {seed}): the same stages,
tensors and code paths as a trained one, and actions that mean nothing. Use it to try a
robot's wiring, to measure time and to test; never to judge behaviour.

- Robot: {robot}, {joints}; rows of {step_ms:g} ms, {horizon} a chunk
- Views: {views}, {image_size} x {image_size} pixels
- Prompt: task and state, up to {tokens} tokens; vocabulary trained on this project's own prompts
- Parameters: {parameters:.1f} million, float32 ONNX
- Training data: none
- Normalisation: from the robot's limits, not from data
- Licence: Apache-2.0, as the rest of the package

Made by: `vla-trt export --size {size} --random-weights {seed} --robot {robot} --out {name}`
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which network, which robot, and where to."""
    parser.add_argument('--size', choices=SIZES, default='nano', help='size of the network')
    parser.add_argument(
        '--random-weights',
        type=int,
        metavar='SEED',
        required=True,
        help='no checkpoint: weights drawn from this seed',
    )
    parser.add_argument(
        '--robot', default='metaworld', help='robot file: a name or a path (default: metaworld)'
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='BUNDLE', help='folder; a bundle is replaced'
    )


def run(args: argparse.Namespace) -> int:
    """Export, and say what was written."""
    for package in ('torch', 'onnx', 'onnxscript'):
        if find_spec(package) is None:
            raise ConfigError(
                f"export needs {package}, which is not installed: pip install '.[export]'."
            )
    import torch

    from vla_trt_ros.export.pi05.random_weights import random_model
    from vla_trt_ros.export.pi05.to_bundle import BundleContents, engine_count, write_bundle
    from vla_trt_ros.export.robots import default_layout, plausible_stats
    from vla_trt_ros.export.tokenizer import train_vocabulary
    from vla_trt_ros.sim.prompts import PROMPTS

    torch.set_num_threads(1)
    robot, config = load_robot(args.robot), SIZES[args.size]
    layout = default_layout(robot)
    model = random_model(config, args.random_weights)
    name = args.out.resolve().name
    card = _CARD.format(
        name=name,
        size=args.size,
        seed=args.random_weights,
        robot=robot.name,
        joints=', '.join(f'{a.joint} ({a.kind})' for a in layout.actions),
        step_ms=layout.step_dt * 1e3,
        horizon=config.horizon,
        views=', '.join(config.views),
        image_size=config.image_size,
        tokens=config.max_prompt_tokens,
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
    )
    contents = BundleContents(
        name=name,
        layout=layout,
        norm_stats=plausible_stats(robot),
        vocabulary=train_vocabulary(
            (text for texts in PROMPTS.values() for text in texts), config.vocab_size
        ),
        model_card=card,
        created_by='vla-trt export',
        notes={
            'weights': f'random, seed {args.random_weights}',
            'licence': 'Apache-2.0',
            'exporter': f'torch {torch.__version__}',
        },
    )
    begin, done, count = time.monotonic(), 0, engine_count(config)

    def report(engine: str) -> None:
        nonlocal done
        done += 1
        elapsed = time.monotonic() - begin
        print(f'[{done:2}/{count}] {elapsed:5.1f} s  {engine}', file=sys.stderr, flush=True)

    write_bundle(model, contents, args.out, report)
    size = sum(f.stat().st_size for f in args.out.rglob('*') if f.is_file()) / 1e6
    print(f'{args.out}: {count} engines, {size:.1f} MB, {time.monotonic() - begin:.0f} s')
    return 0
