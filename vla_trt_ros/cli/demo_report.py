"""What a demo leaves behind: summary, timing plot, and success per task as records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_trt_ros.cli.demo_stage import SceneSeen
from vla_trt_ros.cli.demo_turns import Played, chunk_rate, tally
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.hardware import cpu_name
from vla_trt_ros.messages import chunk_from_msg
from vla_trt_ros.viz.tip_path import tip_path

if TYPE_CHECKING:
    from vla_trt_ros.nodes.monitor import Monitor

_POLICY = ('bundle', 'bundle_sha256', 'runtime', 'platform', 'precision', 'stages')

CLOCK = (
    'chunks_per_s: chunks heard over the wall clock while the arm was free to move; '
    'seconds_to_success: median, from the first command that could move it to sim/success; '
    'simulator, policy and command node as processes over DDS'
)


def summarise(
    monitor: Monitor, played: list[Played], startup: float, statuses: dict[str, int]
) -> dict[str, Any]:
    """Everything of a demo in plain data, the tasks as records of `demo_turns.tally`."""
    timings = [t for _, t in monitor.timings]
    end_to_end = [t.end_to_end_ms for t in timings]
    command = monitor.status.get('command')
    return {
        'hardware': cpu_name(),
        **_policy(monitor.info),
        'num_steps': sorted({t.num_steps for t in timings}),
        'chunks': len(timings),
        'chunks_per_s': _round(chunk_rate(played)),
        'startup_s': _round(startup),
        'switch_s': _round(np.median([one.switch for one in played])) if played else None,
        'end_to_end_p50_ms': _round(np.percentile(end_to_end, 50)),
        'end_to_end_p99_ms': _round(np.percentile(end_to_end, 99)),
        'deadline_missed': sum(not t.deadline_met for t in timings),
        'frames_received': list(timings[-1].frames_received),
        'frames_dropped': list(timings[-1].frames_dropped),
        'commands_clamped': command.clamped if command else 0,
        'exit_statuses': statuses,
        **_perception(monitor),
        'tasks': tally(played),
    }


def _perception(monitor: Monitor) -> dict[str, Any]:
    """What detectors did; nothing where there were none."""
    looks = list(monitor.looks)
    if not looks:
        return {}
    return {
        'looks': len(looks),
        'looks_with_boxes': sum(look.detections > 0 for look in looks),
        'detect_p50_ms': _round(np.percentile([look.detect_ms for look in looks], 50)),
        'classify_p50_ms': _round(np.percentile([look.classify_ms for look in looks], 50)),
        'look_end_to_end_p50_ms': _round(np.percentile([k.end_to_end_ms for k in looks], 50)),
        'look_turns_skipped': sum({k.camera: k.turns_skipped for k in looks}.values()),
    }


def _policy(info: Any) -> dict[str, Any]:
    """Of a PolicyInfo message or None; names as in `evaluation.records`, where both have them."""
    if info is None:
        return dict.fromkeys(_POLICY, '')
    stages = zip(info.stages, info.backends, info.precisions, strict=True)
    values = (
        info.bundle,
        info.bundle_sha256,
        info.runtime,
        info.platform,
        '+'.join(dict.fromkeys(info.precisions)),
        {stage: f'{backend} {precision}' for stage, backend, precision in stages},
    )
    return dict(zip(_POLICY, values, strict=True))


def write(monitor: Monitor, summary: dict[str, Any], out: Path) -> None:
    """Timing plot and summary.json into ``out``, and the summary for people to the terminal."""
    from vla_trt_ros.viz.timing_plot import plot_timing, record_from_msg

    records = [record_from_msg(t) for _, t in monitor.timings]
    steps = ', '.join(map(str, summary['num_steps']))
    title = f'{summary["bundle"]}, {summary["runtime"]}, {steps} steps, {summary["hardware"]}'
    if len(records) > 1:
        print(f'wrote {plot_timing(records, out / "timing.png", title=title)}')
    path = out / 'summary.json'
    path.write_text(json.dumps(summary, indent=1) + '\n', encoding='utf-8')
    for key, value in summary.items():
        if key != 'tasks':
            print(f'  {key:<20} {value}')
    print('\n'.join(table(summary['tasks'])))
    print(f'wrote {path}')


def write_scene(scene: SceneSeen, robot: RobotConfig, out: Path) -> Path:
    """What rviz would have shown at one moment, into ``out``/scene.png."""
    from vla_trt_ros.viz.scene_plot import Snapshot, plot_scene

    path = np.empty((0, 3))
    if scene.chunk is not None:
        path = tip_path(chunk_from_msg(scene.chunk), robot)
    snapshot = Snapshot(scene.pictures, scene.boxes, path, scene.words, robot.frame)
    return plot_scene(snapshot, out / 'scene.png')


def table(records: list[dict[str, Any]]) -> list[str]:
    """Success per task as lines for a terminal."""
    lines = [f'  {"task":<22} {"steps":>5} {"solved":>8}   seconds to success']
    for r in records:
        seconds = '-' if r['seconds_to_success'] is None else f'{r["seconds_to_success"]:.1f}'
        count = f'{r["successes"]}/{r["episodes"]}'
        lines.append(f'  {r["task"]:<22} {r["steps"]:>5} {count:>8}   {seconds}')
    return lines


def write_records(summary: dict[str, Any], path: Path) -> Path:
    """The records of ``summary`` as a results file of their own: the loop is 'live'."""
    shared = {'loop': 'live', 'clock': CLOCK}
    shared |= {key: summary[key] for key in ('hardware', *_POLICY)}
    records = [{**record, **shared} for record in summary['tasks']]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({'records': records}, indent=1) + '\n', encoding='utf-8')
    return path


def _round(value: float) -> float:
    return round(float(value), 2)
