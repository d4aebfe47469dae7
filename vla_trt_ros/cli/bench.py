"""Time a bundle on this machine: synthetic camera frames in, actions in robot units out, per stage
and per step count. Prints where the time goes, how denoise grows with the steps, and how far the
engines are from their floor on paper; beside a PyTorch baseline and other files where asked for.

  vla-trt bench --steps 1,3,10 --json bench.json --plot bench.png
  vla-trt bench --platform h200 --bundle big --prompt-tokens 200 --baseline pytorch
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vla_trt_ros.bundle import Bundle, open_bundle
from vla_trt_ros.cli.bench_baseline import BASELINES, check_baseline, measure_baseline
from vla_trt_ros.cli.bench_measure import Setting, measure, prompt_of, synthetic_observation
from vla_trt_ros.cli.bench_record import OtherRecord, Record, read_others, to_json
from vla_trt_ros.cli.bench_table import report
from vla_trt_ros.cli.words import picture_size, step_counts
from vla_trt_ros.config import PlatformConfig, find_file, load_platform, load_policy
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.planning.devices import find_device
from vla_trt_ros.planning.roofline import Plan, make_plan
from vla_trt_ros.policies.base import check_num_steps
from vla_trt_ros.policies.pi05.engines import read_config
from vla_trt_ros.policies.registry import load_policy_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which bundle, platform and shape; how often; beside what."""
    parser.add_argument('--bundle', default='', help="name or path (default: the policy file's)")
    parser.add_argument('--platform', default='cpu', help='file of config/platforms, or a path')
    parser.add_argument('--policy', default='pi05', help='file of config/policies, or a path')
    parser.add_argument('--views', type=int, default=0, help='views with a frame; 0 = all')
    parser.add_argument('--steps', default='1,2,3,5,10', help='denoise step counts, with commas')
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument('--prompt', default='reach the goal', help='its length chooses the bucket')
    prompt.add_argument(
        '--prompt-tokens', type=int, default=0, metavar='N', help='a made-up prompt of that length'
    )
    parser.add_argument('--camera', default='640x480', help='size of the camera images')
    parser.add_argument('-n', type=int, default=200, help='timed runs per step count')
    parser.add_argument('--warm-up', type=int, default=20, help='untimed runs before')
    parser.add_argument(
        '--baseline',
        action='append',
        default=[],
        choices=BASELINES,
        help='also time the same network, random weights, in PyTorch: eager, or torch.compile '
        '(needs torch; may be given twice)',
    )
    parser.add_argument('--baseline-n', type=int, default=30, help='timed runs of a baseline')
    parser.add_argument(
        '--device',
        default='',
        help="whose peaks the floor is made of, as in vla-trt plan (default: the platform's)",
    )
    parser.add_argument(
        '--compare',
        type=Path,
        action='append',
        default=[],
        metavar='FILE',
        help="print another file's records beside; may be given several times",
    )
    parser.add_argument('--json', default='', metavar='FILE', help='write the records; - = stdout')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='stages and floor, as PNG')


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    steps = step_counts(args.steps)
    if not steps:
        raise ConfigError('--steps is empty: one step count at least, such as 10.')
    for option, count in (('-n', args.n), ('--baseline-n', args.baseline_n)):
        if count < 1:
            raise ConfigError(f'{option} {count}: one timed run at least.')
    picture_size('--camera', args.camera)
    others = [record for path in args.compare for record in read_others(path)]
    draw = _plotter(args.plot)
    platform = load_platform(args.platform)
    name = args.bundle or load_policy(args.policy).bundle
    bundle = open_bundle(find_file('bundles', name, ''))
    setting = Setting(
        args.n, args.warm_up, args.camera, platform, _floors(bundle, platform, args.device)
    )
    for kind in args.baseline:
        check_baseline(kind, setting.platform.on_gpu)
    policy = load_policy_from(bundle, platform)
    try:
        for count in steps:
            check_num_steps(count, policy.num_steps_available)
        prompt = prompt_of(policy, args.prompt_tokens) if args.prompt_tokens else args.prompt
        observation = synthetic_observation(policy, prompt, args.camera, args.views)
        policy.warm_up()
        records = [measure(policy, observation, count, setting) for count in steps]
        runtimes = dict(policy.runtimes)
    finally:
        policy.close()
    baseline: list[Record] = []
    for kind in dict.fromkeys(args.baseline):
        config = read_config(bundle)
        baseline += measure_baseline(
            records, config, kind, args.baseline_n, gpu=setting.platform.on_gpu
        )
    quiet = args.json == '-'
    if not quiet:
        print(report(records, runtimes, baseline, others))
    _write(args.json, [*records, *baseline])
    if args.plot:
        draw(records, baseline, others)
        if not quiet:
            print(f'wrote {args.plot}')
    return 0


def _floors(
    bundle: Bundle, platform: PlatformConfig, device: str
) -> Callable[[int, int, int], Plan | None]:
    """Views, prompt tokens and steps to the floors; None on a CPU, and where no peak is known of
    a device that was not named.
    """
    config = read_config(bundle)

    def floors(views: int, prompt_tokens: int, steps: int) -> Plan | None:
        if platform.target == 'cpu' and not device:
            return None
        try:
            return make_plan(
                replace(config, views=config.views[:views]),
                platform,
                find_device(device, platform.target),
                network=bundle.name,
                prompt_tokens=prompt_tokens,
                steps=steps,
            )
        except ConfigError:
            if device:
                raise
            return None

    if device:
        floors(1, 1, 1)  # a wrong device is refused before anything is measured
    return floors


def _write(name: str, records: Sequence[Record]) -> None:
    if name == '-':
        print(to_json(records), end='')
    elif name:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(records), encoding='utf-8')
        print(f'wrote {path}')


def _plotter(
    path: Path | None,
) -> Callable[[Sequence[Record], Sequence[Record], Sequence[OtherRecord]], None]:
    """What draws the records; a missing matplotlib is said before anything is measured."""
    if path is None:
        return lambda records, baseline, others: None
    from vla_trt_ros.viz.bench_plot import Bar, plot_bench

    def draw(
        records: Sequence[Record], baseline: Sequence[Record], others: Sequence[OtherRecord]
    ) -> None:
        ordered = sorted(records, key=lambda r: r.steps)
        names = ('frames', 'preprocess', 'upload', 'vision', 'prefix', 'denoise')
        bars = [
            Bar(r.steps, r.e2e_total_ms, {k: getattr(r, f'{k}_ms') for k in names}, r.floor_ms)
            for r in ordered
        ]
        last = ordered[-1]
        beside = [(r.implementation, r.e2e_total_ms) for r in baseline if r.steps == last.steps]
        beside += [
            (f'{o.implementation} {o.precision}', o.e2e_total_ms)
            for o in others
            if o.same_work(last)
        ]
        plot_bench(
            bars,
            beside,
            path,
            title=f'{last.hardware}: bundle {last.bundle}, {last.backend} {last.precision}, '
            f'{last.views} views, {last.prompt_tokens} prompt tokens, horizon {last.horizon}, '
            f'n = {last.n}\n{last.clock}',
        )

    return draw
