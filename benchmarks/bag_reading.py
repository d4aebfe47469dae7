"""How fast a bag is read and made ready for the network, and in how much memory.

Usage: bag_reading.py [--pairs 1000] [--place DIR] [--json FILE]

Writes MCAP bags of two cameras, 640x480 rgb8 at 30 Hz, joint states and commands beside them: one
as long as asked and one of an eighth of it. Each is read in a process of its own, with one thread:
decode the message, check it, resize with pad to 224, scale to the network's planes. The clock runs
from the opening of the bag to its last event; the file lies in the page cache, since it was just
written. 'read' stops at the decoded message, 'read_and_prepare' at the network's planes; each is
the median of three. Memory is the process's peak resident size, with interpreter and libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vla_trt_ros.bags.composing import Composer
from vla_trt_ros.bags.reader import open_bag
from vla_trt_ros.bags.writer import BagWriter
from vla_trt_ros.config import load_robot
from vla_trt_ros.datatypes import NS, CameraFrame, Command, CommandKind, JointSample
from vla_trt_ros.policies.pi05.inputs import ImageInput

ROBOT = load_robot('metaworld')
HEIGHT, WIDTH, SIZE, RATE = 480, 640, 224, 30
BEGIN_NS = 1_700_000_000 * NS


def main() -> None:
    """Measure, print, and write the JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--pairs', type=int, default=1000)
    parser.add_argument('--place', type=Path, help='folder for the bags (default: temporary)')
    parser.add_argument('--json', type=Path)
    parser.add_argument('--read', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--prepare', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read, prepare=args.prepare)))
        return
    results = []
    for pairs in (args.pairs // 8, args.pairs):
        with tempfile.TemporaryDirectory(dir=args.place) as folder:
            bag = Path(folder) / 'bag'
            begin = time.perf_counter()
            write(bag, pairs)
            written = time.perf_counter() - begin
            size = sum(p.stat().st_size for p in bag.iterdir())
            row: dict[str, Any] = {'bag_mb': round(size / 1e6), 'write_s': round(written, 2)}
            for what in ('read', 'read_and_prepare'):
                words = [sys.executable, __file__, '--read', str(bag)]
                words += ['--prepare'] if what == 'read_and_prepare' else []
                runs = [subprocess.run(words, check=True, capture_output=True) for _ in range(3)]
                found = sorted((json.loads(r.stdout) for r in runs), key=lambda r: r['wall_s'])
                row[what] = found[1]
            results.append(row)
            print(row)
    if args.json:
        report = {
            'command': 'python benchmarks/bag_reading.py --json benchmarks/bag-reading.json',
            **hardware(),
            'runs': results,
        }
        args.json.write_text(json.dumps(report, indent=1) + '\n')


def write(path: Path, pairs: int) -> None:
    """A bag of ``pairs`` two-camera moments; every picture differs."""
    picture = np.random.default_rng(0).integers(0, 256, HEIGHT * WIDTH * 3 + pairs, np.uint8)
    with BagWriter(path) as bag:
        composer = Composer(bag)
        for k in range(pairs):
            ns = BEGIN_NS + k * NS // RATE
            position = np.array([0.1, 0.5, 0.2, k % 2])
            composer.joints(
                ROBOT.joint_states_topic, JointSample(ns, ns, ROBOT.joint_names, position)
            )
            for view, camera in ROBOT.cameras.items():
                data = picture[k : k + HEIGHT * WIDTH * 3]
                frame = CameraFrame(ns, ns, view, 'rgb8', HEIGHT, WIDTH, 3 * WIDTH, data)
                composer.image(camera.topic, frame)
            still = np.zeros((1, 4))
            composer.command(
                ROBOT.controller.topic,
                Command(
                    CommandKind.TRAJECTORY,
                    ns,
                    ROBOT.joint_names,
                    position[None],
                    still,
                    np.array([ROBOT.step_ns / NS]),
                ),
            )


def read(path: Path, *, prepare: bool) -> dict[str, Any]:
    """Read ``path`` as a replay does, up to the network's input."""
    cv2.setNumThreads(1)
    pixels = np.zeros((len(ROBOT.cameras), 3, SIZE, SIZE), np.float32)
    inputs = ImageInput(tuple(ROBOT.cameras), pixels)
    frames: dict[str, CameraFrame] = {}
    pairs = 0
    begin, cpu = time.perf_counter(), time.process_time()
    bag = open_bag([path], ROBOT)
    for event in bag.events():
        if event.kind != 'camera':
            continue
        frames[event.name] = event.payload
        if len(frames) == len(ROBOT.cameras):
            if prepare:
                inputs.write(frames)
            frames.clear()
            pairs += 1
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    assert bag.notes() == []
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        'pairs': pairs,
        'wall_s': round(wall, 3),
        'cpu_s': round(cpu, 3),
        'pairs_per_s': round(pairs / wall, 1),
        'pairs_per_cpu_s': round(pairs / cpu, 1),
        'peak_rss_mib': round(peak_kib / 1024),
    }


def hardware() -> dict[str, Any]:
    """What it ran on."""
    lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    model = next((line.split(':')[1].strip() for line in lines if 'model name' in line), '')
    return {
        'processor': model or platform.processor(),
        'cores': os.cpu_count(),
        'load_at_start': round(os.getloadavg()[0], 2),
        'python': platform.python_version(),
        'rosbags': version('rosbags'),
        'numpy': np.__version__,
        'opencv': cv2.__version__,
    }


if __name__ == '__main__':
    main()
