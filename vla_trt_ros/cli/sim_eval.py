"""Does the policy do the task? Closed-loop episodes in a simulator, episode k on seed S + k, and
the share that succeeds per task, step count and precision, with its 95 % interval.

With --json each episode is on disk as it ends: stop with Ctrl-C, go on with --resume.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vla_trt_ros.bundle import Bundle, open_bundle
from vla_trt_ros.cli.progress import bar
from vla_trt_ros.cli.words import picture_size, step_counts
from vla_trt_ros.config import (
    PlatformConfig,
    find_file,
    load_platform,
    load_policy,
    load_robot,
)
from vla_trt_ros.errors import ConfigError
from vla_trt_ros.evaluation.cases import Case, Outcome, Setup, all_cases
from vla_trt_ros.evaluation.episode import check_rows
from vla_trt_ros.evaluation.precision_choice import at_precision, precision_label, stages_of
from vla_trt_ros.evaluation.prompting import PROMPT_MODES, PromptMode, derangement
from vla_trt_ros.evaluation.records import CLOCK, Conditions, Record, count
from vla_trt_ros.evaluation.report import broken, falls, means, tables
from vla_trt_ros.evaluation.results_file import ResultsFile
from vla_trt_ros.evaluation.workers import run_cases
from vla_trt_ros.gpu.device import device_name
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.policies.base import check_num_steps
from vla_trt_ros.policies.pi05.engines import read_config
from vla_trt_ros.sim.suites import SUITES, Suite, load_suite

INTERRUPTED = 130
FILMS = ('first', 'failures', 'all')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is judged, on what, and where the results go."""
    parser.add_argument('--env', default='metaworld', help=f'simulator: {", ".join(SUITES)}')
    parser.add_argument('--tasks', default='', help="with commas (default: the simulator's set)")
    parser.add_argument('--episodes', type=int, default=10, help='per task and setting')
    parser.add_argument('--seed', type=int, help='first of the seeds (default: held-out ones)')
    parser.add_argument('--allow-training-seeds', action='store_true', help='for a comparison')
    parser.add_argument('--steps', default='10', help='denoise step counts, with commas')
    parser.add_argument(
        '--precision', default='', help="with commas, such as fp32,int8 (default: the platform's)"
    )
    parser.add_argument('--bundle', default='', help="name or path (default: the policy file's)")
    parser.add_argument('--platform', default='cpu', help='file of config/platforms, or a path')
    parser.add_argument(
        '--prompts',
        default='canonical',
        help="canonical; varied = other phrasings; shuffled = another task's; or several",
    )
    parser.add_argument('--execute-rows', type=int, help='rows of a chunk until the next one')
    parser.add_argument(
        '--delay-rows', type=int, default=0, help='rows from the pictures to their chunk in use'
    )
    parser.add_argument('--max-steps', type=int, default=0, help='control steps of an episode')
    parser.add_argument('--camera', default='', help='size of the camera images, such as 224x224')
    parser.add_argument('--workers', type=int, default=0, help='processes (default: one a core)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the records')
    parser.add_argument(
        '--resume', action='store_true', help='keep what --json FILE has, do what is missing'
    )
    parser.add_argument('--plot', type=Path, metavar='FILE', help='write a PNG')
    parser.add_argument('--video', default='', metavar='DIR', help='write films of episodes')
    parser.add_argument('--film', choices=FILMS, default='first', help='which (first: per task)')


@dataclass(frozen=True, slots=True)
class _Plan:
    suite: Suite
    setup: Setup
    cases: list[Case]
    seeds: range
    conditions: Conditions


def run(args: argparse.Namespace) -> int:
    """Run the episodes, print the tables, write the files; status 130 after Ctrl-C."""
    if args.resume and not args.json:
        raise ConfigError('--resume needs --json FILE: the run to go on with.')
    plan = _plan(args)
    file = ResultsFile(args.json, plan.conditions, resume=args.resume) if args.json else None
    cases = file.missing(plan.cases, plan.seeds) if file else plan.cases
    planned = set(plan.cases)
    outcomes = [o for o in file.outcomes if o.case in planned] if file else []
    if len(cases) < len(plan.cases):
        print(f'{len(plan.cases) - len(cases)} of {len(plan.cases)} episodes are done already')
    for label, platform in plan.setup.platforms.items():
        stages = ', '.join(f'{s} {how}' for s, how in stages_of(platform).items())
        print(f'{label}: {stages}')
    whole = _run(plan, cases, outcomes, file)
    new = count(_in_order(outcomes, plan.cases), plan.setup, plan.conditions)
    records = [*_kept(plan, file), *new]
    if file and whole:
        file.finish(new)
        print(f'wrote {args.json}')
    elif file:
        file.close()
        print(f'stopped; {len(outcomes)} episodes are in {file.episodes_path}: --resume goes on')
    if records:
        _show(records, plan.suite, args.plot)
    return 0 if whole else INTERRUPTED


def _kept(plan: _Plan, file: ResultsFile | None) -> list[Record]:
    """Records of this test that the file had already."""
    wanted = {case.group for case in plan.cases}
    return [r for r in file.answering(plan.seeds) if r.group in wanted] if file else []


def _run(
    plan: _Plan, cases: list[Case], outcomes: list[Outcome], file: ResultsFile | None
) -> bool:
    """Add the outcomes of ``cases``; False where Ctrl-C came first."""
    won = run = 0
    running = run_cases(plan.setup, cases, workers=plan.conditions.workers)
    shown = bar(running, 'episodes', total=len(cases), note=lambda: f'{won} of {run} solved')
    with closing(running):
        try:
            for outcome in shown:
                if file:
                    file.add(outcome)
                outcomes.append(outcome)
                run, won = run + 1, won + outcome.result.success
                if outcome.result.error:
                    print(f'\n{outcome.case}: {outcome.result.error}', file=sys.stderr)
        except KeyboardInterrupt:
            print(file=sys.stderr)
            return False
    return True


def _in_order(outcomes: Iterable[Outcome], cases: list[Case]) -> list[Outcome]:
    """As the cases stand, whichever process was done first."""
    found = {o.case: o for o in outcomes}
    return [found[case] for case in cases if case in found]


def _show(records: list[Record], suite: Suite, plot: Path | None) -> None:
    for line in (*tables(records), *broken(records), *falls(records, suite.look_alike)):
        print(line)
    print(f'clock: {CLOCK}')
    if plot:
        from vla_trt_ros.viz.success_plot import plot_success

        first = records[0]
        title = (
            f'{first.conditions.bundle} in {first.conditions.env}: success with 95 % interval, '
            f'{first.episodes} episodes a task, seeds {first.seeds[0]} to {first.seeds[1]}'
        )
        points = [*(means(records) if len({r.task for r in records}) > 1 else ()), *records]
        print(f'wrote {plot_success(points, plot, title=title)}')


def _plan(args: argparse.Namespace) -> _Plan:
    """All that can be known to be wrong before an episode is said here."""
    suite = load_suite(args.env)
    words = [w for w in args.tasks.split(',') if w]
    tasks = tuple(dict.fromkeys(t for w in words for t in suite.tasks_of(w)))
    tasks = tasks or suite.default_tasks
    seeds = _seeds(args, suite)
    steps = step_counts(args.steps)
    prompts = _prompts(args.prompts, tasks, suite)
    bundle = open_bundle(find_file('bundles', args.bundle or load_policy(suite.policy).bundle, ''))
    bundle.check_robot(load_robot(suite.robot))
    config = read_config(bundle)
    for number in steps or [0]:
        check_num_steps(number, config.num_steps)
    execute_rows = suite.execute_rows if args.execute_rows is None else args.execute_rows
    check_rows(execute_rows, args.delay_rows, config.horizon)
    if args.max_steps < 0 or args.workers < 0:
        raise ConfigError('--max-steps and --workers must not be negative; 0 is automatic.')
    platforms = _platforms(args, bundle)
    setup = Setup(
        env=suite.name,
        bundle=str(bundle.path),
        platforms=platforms,
        tasks=tasks,
        image_size=picture_size('--camera', args.camera) if args.camera else suite.image_size,
        execute_rows=execute_rows,
        delay_rows=args.delay_rows,
        max_steps=args.max_steps,
        video=args.video,
        film=args.film,
        first_seed=seeds[0],
    )
    conditions = Conditions(
        env=suite.name,
        bundle=bundle.name,
        bundle_sha256=bundle.sha256,
        hardware=_hardware(platforms),
        workers=args.workers or os.cpu_count() or 1,
        execute_rows=execute_rows,
        delay_rows=args.delay_rows,
        max_steps=args.max_steps,
        image_size=setup.image_size,
    )
    cases = all_cases(tasks, steps, list(platforms), prompts, seeds)
    return _Plan(suite, setup, cases, seeds, conditions)


def _hardware(platforms: Mapping[str, PlatformConfig]) -> str:
    """What plays: the processor, with the GPU in front where one runs any stage."""
    if any(p.on_gpu for p in platforms.values()):
        return f'{device_name()}, {cpu_name()}'
    return cpu_name()


def _seeds(args: argparse.Namespace, suite: Suite) -> range:
    if args.episodes < 1:
        raise ConfigError(f'--episodes {args.episodes}: one at least.')
    first = suite.first_seed if args.seed is None else args.seed
    seeds = range(first, first + args.episodes)
    if not args.allow_training_seeds:
        suite.check_seeds(seeds)
    elif first < 0:
        raise ConfigError(f'--seed {first} is negative.')
    return seeds


def _prompts(text: str, tasks: tuple[str, ...], suite: Suite) -> list[PromptMode]:
    modes = list(dict.fromkeys(w for w in text.split(',') if w))
    for mode in modes or ['']:
        if mode not in PROMPT_MODES:
            raise ConfigError(f'--prompts {mode!r} is none of {", ".join(PROMPT_MODES)}.')
    if 'shuffled' in modes:
        derangement(tasks, 0)  # refuses a single task
    if 'varied' in modes and all(len(suite.prompts_of(task)) == 1 for task in tasks):
        raise ConfigError(
            f'--prompts varied: tasks of {suite.name} have one phrasing each; use canonical.'
        )
    return cast('list[PromptMode]', modes)


def _platforms(args: argparse.Namespace, bundle: Bundle) -> dict[str, PlatformConfig]:
    platform = load_platform(args.platform)
    precisions = [p for p in args.precision.split(',') if p]
    if not precisions:
        return {precision_label(platform): platform}
    return {p: at_precision(platform, bundle, p) for p in precisions}
