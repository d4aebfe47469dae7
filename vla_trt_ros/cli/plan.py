"""Memory and time on paper: FLOP and bytes of each stage, what the engines hold in memory, and
the floor that no engine can beat on a device. Nothing is run and no GPU is needed.

With several platforms, precisions or step counts the plans stand side by side:

  vla-trt plan --platform thor --precision fp8 --views 2 --prompt-tokens 48 --steps 10
  vla-trt plan --platform thor --precision bf16,fp8,nvfp4 --steps 1,3,10 --plot floors.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from vla_trt_ros.bundle import open_bundle
from vla_trt_ros.cli.words import step_counts
from vla_trt_ros.config import (
    STAGES,
    PlatformConfig,
    StageChoice,
    available,
    find_file,
    load_platform,
)
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.planning.devices import DEVICES, find_device
from vla_trt_ros.planning.efficiency import Efficiency, read_shares
from vla_trt_ros.planning.measured import shares_from
from vla_trt_ros.planning.report import comparison, record, table
from vla_trt_ros.planning.roofline import Plan, make_plan
from vla_trt_ros.policies.pi05.engines import read_config
from vla_trt_ros.policies.pi05.spec import NANO, PI05, Pi05Config

SIZES = {'nano': NANO, 'pi05': PI05}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which network, on what, at which shape."""
    parser.add_argument(
        '--platform',
        default='',
        help='files of config/platforms, with commas (default: every GPU)',
    )
    parser.add_argument(
        '--device',
        default='',
        help=f'{", ".join(d.name for d in DEVICES)}, or a YAML file (default: the first that '
        "is of the platform's target)",
    )
    parser.add_argument(
        '--precision',
        default='',
        help='of all stages, or VISION/PREFIX/DENOISE; with commas several '
        "(default: the platform file's)",
    )
    network = parser.add_mutually_exclusive_group()
    network.add_argument('--size', choices=SIZES, help='size of the network (default: pi05)')
    network.add_argument('--bundle', default='', help='a bundle instead: name or path')
    parser.add_argument('--views', type=int, help='camera views (default: all of the network)')
    parser.add_argument('--prompt-tokens', type=int, default=48, help='length of the prompt')
    parser.add_argument('--horizon', type=int, help="rows of a chunk (default: the network's)")
    parser.add_argument('--steps', default='10', help='denoise step counts, with commas')
    parser.add_argument(
        '--efficiency',
        type=Path,
        metavar='FILE',
        help='shares of its floor rate that each stage was measured to reach on this platform, '
        "or the records of 'vla-trt bench --json'; turns floors into predictions",
    )
    parser.add_argument('--json', default='', metavar='FILE', help='write the plans; - = stdout')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='floors against steps, as PNG')


def run(args: argparse.Namespace) -> int:
    """Plan, print, write. JSON is one record, or a list of them where there are several plans."""
    counts = step_counts(args.steps)
    if not counts:
        raise ConfigError('--steps is empty: one step count at least, such as 10.')
    name, config = _network(args)
    chosen = [
        _with_precision(platform, words)
        for platform, words in product(_platforms(args.platform), _precisions(args.precision))
    ]

    def plan(
        platform: PlatformConfig,
        steps: int,
        shares: Efficiency | None = None,
        tokens: int = args.prompt_tokens,
    ) -> Plan:
        return make_plan(
            config,
            platform,
            find_device(args.device, platform.target),
            network=name,
            prompt_tokens=tokens,
            steps=steps,
            efficiency=shares,
        )

    shares = _shares(args.efficiency, chosen, plan) if args.efficiency else None
    plans = [plan(platform, steps, shares) for platform in chosen for steps in counts]
    if args.json != '-':
        print(table(plans[0]) if len(plans) == 1 else comparison(plans))
    if args.json:
        _write(args.json, plans)
    if args.plot:
        from vla_trt_ros.viz.floor_plot import plot_floors

        most = max(10, *counts)
        curves = [[plan(platform, n, shares) for n in range(1, most + 1)] for platform in chosen]
        plot_floors(curves, args.plot, steps=sorted(set(counts)))
        if args.json != '-':
            print(f'wrote {args.plot}')
    return 0


def _write(name: str, plans: Sequence[Plan]) -> None:
    records = [record(p) for p in plans]
    text = json.dumps(records[0] if len(plans) == 1 else records, indent=1) + '\n'
    if name == '-':
        print(text, end='')
        return
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
    print(f'wrote {path}')


def _shares(path: Path, chosen: list[PlatformConfig], plan: Callable[..., Plan]) -> Efficiency:
    """What ``path`` holds, or what its benchmark comes to on the one platform in ``chosen``."""
    if len({p.name for p in chosen}) > 1:
        raise ConfigError(
            f'--efficiency {path}: shares are measured on one device; name its --platform alone.'
        )
    found = read_shares(path)
    if isinstance(found, Efficiency):
        return found
    if len(chosen) > 1:
        raise ConfigError(
            f'--efficiency {path}: a benchmark is of one choice of precisions; name that alone, '
            "and take the shares for others from --json's efficiency."
        )
    return shares_from(found, lambda tokens, n: plan(chosen[0], n, None, tokens), str(path))


def _network(args: argparse.Namespace) -> tuple[str, Pi05Config]:
    """Name and sizes, with the views and the horizon that were asked for."""
    if args.bundle:
        bundle = open_bundle(find_file('bundles', args.bundle, ''))
        name, config = bundle.name, read_config(bundle)
    else:
        name = args.size or 'pi05'
        config = SIZES[name]
    if args.views is not None:
        if not 1 <= args.views <= len(config.views):
            raise ConfigError(
                f'--views {args.views}: {name} takes 1 to {len(config.views)} '
                f'({", ".join(config.views)}).'
            )
        config = replace(config, views=config.views[: args.views])
    if args.horizon is not None:
        config = replace(config, horizon=args.horizon)
    return name, config


def _platforms(text: str) -> list[PlatformConfig]:
    if text:
        return [load_platform(word) for word in text.split(',')]
    targets = {d.target for d in DEVICES}
    known = (load_platform(name) for name in available('platforms'))
    return [p for p in known if p.target in targets]


def _precisions(text: str) -> list[tuple[str, ...]]:
    """Per case: nothing, one precision, or one for each stage."""
    cases = [tuple(filter(None, word.split('/'))) for word in text.split(',')]
    for words in cases:
        if len(words) not in ((0, 1, 3) if not text else (1, 3)):
            raise ConfigError(
                f'--precision {text!r}: write fp8, fp16/fp8/bf16 for vision, prefix and denoise, '
                'or several of these with commas.'
            )
    return cases


def _with_precision(platform: PlatformConfig, words: tuple[str, ...]) -> PlatformConfig:
    if not words:
        return platform
    each = words * 3 if len(words) == 1 else words
    vision, prefix, denoise = (
        StageChoice(platform.stage(stage).backend, precision)  # type: ignore[arg-type]
        for stage, precision in zip(STAGES, each, strict=True)
    )
    try:
        # PlatformConfig knows what its target can compute, and refuses the rest by name.
        return replace(platform, vision=vision, prefix=prefix, denoise=denoise)
    except ConfigError as error:
        raise ConfigError(f'platform {platform.name}: {error}') from error
