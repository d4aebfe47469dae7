"""Figures of vla-trt replay with nano, on bags of the teacher in the simulator.

Usage: replay_nano.py [--work DIR] [--minutes 2] [--long 10] [--json benchmarks/replay-nano.json]

1. A long bag of seeds that nobody saw, at 10 steps: timed from the command line to the report.
2. The same errors on seeds that were trained on and on those that a checkpoint was chosen with.
   (training/ keeps no error in these units: benchmarks/nano-training.jsonl has the loss of the
   flow, on seeds that were trained on.)
3. fp32 against int8 and 10 steps against 1, on a bag of seeds that nobody saw.

Bags stay in --work and are not made again. Sizes of pictures: 224x224.
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
from typing import Any

from vla_trt_ros.hardware import cpu_name

SEEDS = {'trained on': 0, 'chosen with': 100_000, 'never seen': 900_000}
KEPT = ('frames', 'mae_h1', 'mae_h5', 'mae_all', 'mse_all', 'gripper_agreement', 'seam', 'jerk')
LONG_CLOCK = (
    'wall clock of the command: imports, engines, reading, inference with one thread, judging, '
    'report'
)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work', type=Path, default=Path(tempfile.gettempdir()) / 'replay_nano')
    parser.add_argument('--minutes', type=float, default=2.0, help='of each bag of 2 and 3')
    parser.add_argument('--long', type=float, default=10.0, help='minutes of the bag of 1')
    parser.add_argument('--json', type=Path, default=Path('benchmarks/replay-nano.json'))
    args = parser.parse_args()
    out = args.work / 'out'
    found: dict[str, Any] = {'hardware': cpu_name(), 'bundle': 'nano', 'pictures': '224x224'}
    long = _bag(args.work / 'long', args.long, SEEDS['never seen'])
    report, cost = _replay([long], out)
    setting = report['settings'][0]
    found['long'] = {
        'minutes_of_pictures': args.long,
        'frame_pairs': setting['counts']['pairs'],
        'bag_gib': round(sum(f.stat().st_size for f in long.iterdir()) / 2**30, 2),
        **cost,
        'clock': LONG_CLOCK,
        'inference_p50_ms': round(setting['metrics']['inference_p50_ms'], 2),
    }
    found['errors'] = {'never seen': _with_intervals(setting)}
    for name in ('chosen with', 'trained on'):
        bag = _bag(args.work / f'seed{SEEDS[name]}', args.minutes, SEEDS[name])
        found['errors'][name] = _with_intervals(_replay([bag], out)[0]['settings'][0])
    found['never_seen_over'] = {
        name: round(found['errors']['never seen']['mae_all'] / found['errors'][name]['mae_all'], 3)
        for name in ('chosen with', 'trained on')
    }
    short = _bag(args.work / f'seed{SEEDS["never seen"]}', args.minutes, SEEDS['never seen'])
    report, _ = _replay([short], out, '--steps', '10,1', '--precision', 'fp32,int8')
    found['settings'] = {s['name']: _metrics(s) for s in report['settings']}
    found['differences'] = [
        {
            'setting': c['setting'],
            'reference': c['reference'],
            **{
                d['metric']: {
                    **{k: float(f'{d[k]:.4g}') for k in ('mean', 'low', 'high')},
                    **{k: d[k] for k in ('frames', 'blocks')},
                }
                for d in c['differences']
                if d['metric'] in ('mae_h1', 'mae_all', 'gripper_agreement', 'seam')
            },
        }
        for c in report['comparisons']
    ]
    args.json.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    print(f'wrote {args.json}')


def _bag(path: Path, minutes: float, seed: int) -> Path:
    if not path.exists():
        draft = path.with_name(path.name + '.draft')
        shutil.rmtree(draft, ignore_errors=True)
        script = Path(__file__).with_name('expert_bag.py')
        words = [str(draft), '--minutes', str(minutes), '--seed', str(seed)]
        subprocess.run([sys.executable, str(script), *words], check=True)
        draft.rename(path)
    return path


def _replay(bags: list[Path], out: Path, *words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """report.json, and what the command cost."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, '-m', 'vla_trt_ros.cli.main', 'replay', *map(str, bags)]
    begin = time.perf_counter()
    child = subprocess.Popen([*command, '--out', str(out), *words])
    _, status, usage = os.wait4(child.pid, 0)  # of this child alone
    if status:
        raise SystemExit(f'replay ended with {os.waitstatus_to_exitcode(status)}')
    cost = {
        'seconds': round(time.perf_counter() - begin, 1),
        'cpu_seconds': round(usage.ru_utime + usage.ru_stime, 1),
        'peak_memory_mib': round(usage.ru_maxrss / 1024),
        'load_of_the_machine': round(os.getloadavg()[1], 1),
    }
    return json.loads((out / 'report.json').read_text(encoding='utf-8')), cost


def _with_intervals(setting: dict[str, Any]) -> dict[str, Any]:
    """The metrics, with 95 % intervals from a bootstrap over blocks of 5 s."""
    intervals = setting['intervals95'].items()
    return {
        **_metrics(setting),
        'intervals95': {name: [float(f'{end:.4g}') for end in ends] for name, ends in intervals},
    }


def _metrics(setting: dict[str, Any]) -> dict[str, float]:
    metrics = setting['metrics']
    chosen = {k: v for k, v in metrics.items() if k in KEPT or k.startswith('mae_all.')}
    rounded = {name: float(f'{value:.5g}') for name, value in chosen.items()}
    return {**rounded, 'frames': int(metrics['frames'])}


if __name__ == '__main__':
    main()
