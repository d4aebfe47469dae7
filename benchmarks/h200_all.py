"""Everything that is measured of the product on an H200, in one command:

    python benchmarks/h200_all.py --realtime-vla DIR --lerobot DIR --json benchmarks/h200-pi05.json

For each shape, VIEWSxTOKENSxHORIZON: a true-size bundle of random weights is made on the GPU, in
bf16 and FP8, each is timed by `vla-trt bench` (floors, and a PyTorch baseline beside bf16), and
so are the peers whose folders are given, on the same card one after the other. Records are merged
into --json as they come. Needs one GPU of compute capability 9.0 with 40 GB, 25 GB of disk, torch
and triton; --shapes does one of them. benchmarks/h200_pi05.py is the other half: accuracy, and
replays of the graphs alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from records import line, merge, shape

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ('bf16', 'fp8')
CAMERAS = ('base', 'wrist', 'side')


def main():
    """Make, measure, merge."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--json', type=Path, required=True, metavar='FILE', help='merged into')
    parser.add_argument('--shapes', default='3x200x50,2x48x10', metavar='LIST')
    parser.add_argument('--precisions', default=','.join(PRECISIONS), metavar='LIST')
    parser.add_argument('--steps', default='1,2,3,5,10')
    parser.add_argument('-n', type=int, default=500, help='timed runs per step count')
    parser.add_argument('--no-baseline', action='store_true', help='no PyTorch beside bf16')
    parser.add_argument('--realtime-vla', type=Path, metavar='DIR', help='a clone of the peer')
    parser.add_argument('--lerobot', type=Path, metavar='DIR', help='a clone of the peer')
    parser.add_argument(
        '--plots', type=Path, metavar='DIR', help='a picture per bundle and precision'
    )
    parser.add_argument('--work', type=Path, metavar='DIR', help='bundles go there and stay')
    args = parser.parse_args()
    shapes = [shape(text) for text in args.shapes.split(',')]
    clock = time.monotonic()
    with tempfile.TemporaryDirectory() as aside:
        work = args.work or Path(aside)
        work.mkdir(parents=True, exist_ok=True)
        for wanted in shapes:
            peers = measure_peers(args, work, wanted)
            bundle = export(args, work, wanted)
            for precision in args.precisions.split(','):
                bench(args, work, wanted, bundle, precision, peers)
            if not args.work:
                shutil.rmtree(bundle)
            print(f'[{time.monotonic() - clock:5.0f} s] {name_of(wanted)} done', flush=True)


def name_of(wanted):
    """'3x200x50'."""
    return 'x'.join(map(str, wanted))


def measure_peers(args, work, wanted):
    """Time the peers whose folders were given; the file of their records of this shape."""
    path = work / f'peers-{name_of(wanted)}.json'
    for folder, script in (
        (args.realtime_vla, 'peer_realtime_vla.py'),
        (args.lerobot, 'peer_lerobot.py'),
    ):
        if folder is None:
            continue
        words = [ROOT / 'benchmarks' / script, folder, '--shapes', name_of(wanted)]
        revision = _revision(folder)
        if revision:
            words += ['--revision', revision]
        # A peer that fails takes nothing else with it.
        if _python(*words, '--json', path, check=False):
            print(f'{script} failed; the others go on.', flush=True)
    if path.is_file():
        merge(args.json, json.loads(path.read_text(encoding='utf-8')))
    return path


def export(args, work, wanted):
    """The bundle of a shape, made on the GPU."""
    views, tokens, horizon = wanted
    # The Meta-World robot with as many cameras as the shape has views; it has two itself, and a
    # bundle of that shape serves the benchmarks of nodes too.
    robot_file = ROOT / 'config/robots/metaworld.yaml'
    robot = yaml.safe_load(robot_file.read_text(encoding='utf-8'))
    if tuple(robot['cameras']) != CAMERAS[:views]:
        robot['cameras'] = {c: {'topic': f'{c}/image_raw'} for c in CAMERAS[:views]}
        robot['name'] = f'cameras-{views}'
        robot_file = work / f'{robot["name"]}.yaml'
        robot_file.write_text(yaml.safe_dump(robot, sort_keys=False), encoding='utf-8')
    bundle = work / f'pi05-{name_of(wanted)}'
    begin = time.monotonic()
    _vla_trt(
        *('export', '--random-weights', '0', '--size', 'pi05', '--backend', 'cuda_graph'),
        *('--precision', args.precisions, '--device', 'cuda', '--robot', robot_file),
        *('--tokenizer', ROOT / 'bundles/nano/tokenizer.model'),
        *('--buckets', tokens, '--horizon', horizon, '--steps', args.steps, '--out', bundle),
    )
    print(f'bundle {bundle.name} made in {time.monotonic() - begin:.0f} s', flush=True)
    return bundle


def bench(args, work, wanted, bundle, precision, peers):
    """`vla-trt bench` of one precision, its records merged."""
    stage = {'backend': 'cuda_graph', 'precision': precision}
    platform = {'name': f'h200-{precision}', 'description': f'cuda_graph in {precision}'}
    platform |= {'target': 'sm_90', 'vision': stage, 'prefix': stage, 'denoise': stage}
    platform_file = work / f'{platform["name"]}.yaml'
    platform_file.write_text(yaml.safe_dump(platform), encoding='utf-8')
    records = work / f'{bundle.name}-{precision}.json'
    words = ['--platform', platform_file, '--bundle', bundle, '--prompt-tokens', wanted[1]]
    words += ['--steps', args.steps, '-n', args.n, '--json', records]
    if precision == 'bf16' and not args.no_baseline:
        words += ['--baseline', 'pytorch']
    if peers.is_file():
        words += ['--compare', peers]
    if args.plots:
        words += ['--plot', args.plots / f'bench-{bundle.name}-{precision}.png']
    begin = time.monotonic()
    _vla_trt('bench', *words)
    found = json.loads(records.read_text(encoding='utf-8'))
    merge(args.json, found)
    print(f'{len(found)} records in {time.monotonic() - begin:.0f} s, the last:')
    print(line(found[-1]), flush=True)


def _revision(folder):
    """Commit of a clone, or what its file REVISION says; '' where neither is there."""
    said = folder / 'REVISION'
    if said.is_file():
        return said.read_text(encoding='utf-8').strip()
    words = ['git', '-C', folder, 'rev-parse', '--short', 'HEAD']
    if not (folder / '.git').exists():
        return ''
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def _vla_trt(*words):
    _python('-m', 'vla_trt_ros.cli.main', *words)


def _python(*words, check=True):
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]),
    }
    done = subprocess.run([sys.executable, *map(str, words)], env=environment, check=False)
    if check and done.returncode:
        raise SystemExit(f'{" ".join(map(str, words))}: status {done.returncode}')
    return done.returncode


if __name__ == '__main__':
    main()
